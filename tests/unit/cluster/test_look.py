"""What the parts of a cluster say, put side by side: also when some of them cannot speak."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster import look as module
from saf_env.cluster import state as states
from saf_env.cluster.gcs import RayNode
from saf_env.cluster.look import Look, look
from saf_env.cluster.project import Project
from saf_env.cluster.same_plan import plan_digest
from saf_env.errors import BringUpError
from saf_env.plan.build import token_path
from saf_env.plan.fingerprint import actual_fingerprint
from saf_env.runtimes.base import Found
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan

MUTE = BringUpError("its head's environment cannot ask", hint="mend it")


class Cluster:
    """Two native nodes that run as planned; Ray answers, or its head cannot ask."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        planned = actual_fingerprint(make_facts(make_node("head", 6380))["facts"])
        ports = {"head": 6380, "linux": 6480}
        nodes = [make_node(name, port, fingerprint=planned) for name, port in ports.items()]
        self.plan = dataclasses.replace(make_plan(*nodes), home=home)
        self.facts = {node.name: make_facts(node) for node in nodes}
        self.error: BringUpError | None = None
        token = token_path(home, self.plan.name)
        token.parent.mkdir(parents=True)
        token.touch()
        runs = {node.name: f"{plan_digest(node, self.plan.address)}.1" for node in nodes}
        roles = {"leader": 1, "raylet": 1, "gcs": 1}
        self.found = [Found(name, run, roles, None, "here") for name, run in runs.items()]
        self.ray = [
            RayNode("id", n, run, True, "127.0.0.1", 1, {}, None) for n, run in runs.items()
        ]
        state = SimpleNamespace(recorded=[], nodes=runs, is_attested=lambda *_: True)
        monkeypatch.setattr(module, "gather", lambda *_, **__: self.facts)
        monkeypatch.setattr(states, "read", lambda *_: state)

    def nodes(self) -> list[RayNode]:
        if self.error:
            raise self.error
        return self.ray

    def look(self) -> Look:
        hosts = SimpleNamespace(look=lambda _: (self.found, {}), unasked=set())
        gcs = SimpleNamespace(via=self.plan.head, nodes=self.nodes)
        return look(cast(Project, SimpleNamespace(plan=self.plan, hosts=lambda: hosts, gcs=gcs)))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def states_of(seen: Look) -> dict[str, str]:
    return {status.node.name: status.state for status in seen.nodes}


def change(facts: dict[str, Any]) -> None:
    facts["facts"]["files"]["changed"] = [1, ["lib/ray/_raylet.so"]]


def test_what_runs_as_planned_is_ready(cluster: Cluster) -> None:
    seen = cluster.look()
    assert states_of(seen) == {"head": "ready", "linux": "ready"}
    assert seen.answered
    assert seen.ready(["linux"])


def test_a_node_that_drifts_later_is_seen(cluster: Cluster) -> None:
    change(cluster.facts["linux"])
    assert states_of(cluster.look()) == {"head": "ready", "linux": "drifted"}


def test_a_head_that_drifts_so_far_that_it_cannot_ask_is_seen(cluster: Cluster) -> None:
    change(cluster.facts["head"])
    cluster.error = MUTE

    seen = cluster.look()

    assert states_of(seen) == {"head": "drifted", "linux": "ready"}
    assert seen.mute is MUTE
    assert not seen.answered
    assert not seen.ready(["linux"]), "nobody knows"


def test_a_refusal_that_is_no_drift_is_an_error(cluster: Cluster) -> None:
    cluster.error = MUTE
    with pytest.raises(BringUpError) as raised:
        cluster.look()
    assert raised.value is MUTE

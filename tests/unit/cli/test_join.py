"""Commands on a host that the cluster is not run from."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from saf_env import probe
from saf_env.cli.commands import down, join, up
from saf_env.cli.commands.test import make_driver
from saf_env.cli.context import Context
from saf_env.cluster.gcs import Gcs, RayNode
from saf_env.cluster.same_plan import plan_digest, refuse_headless
from saf_env.cluster.token import ensure_token
from saf_env.errors import BringUpError, LockError, ToolchainError, UsageError
from saf_env.lock.model import Lock
from saf_env.plan.build import build
from saf_env.plan.model import ClusterPlan
from saf_env.provision.environments import marker_of
from saf_env.runtimes.base import Found
from saf_env.spec.model import ClusterSpec


def several(spec: ClusterSpec, *, ssh: str | None = None) -> ClusterSpec:
    """The head on alpha, which is reached by ``ssh``; the other node, a native one, on beta."""
    alpha = replace(spec.hosts["here"], name="alpha", address="100.64.0.1", ssh=ssh)
    beta = replace(alpha, name="beta", address="100.64.0.2", ssh="beta")
    nodes = tuple(
        replace(n, host="alpha") if n.role == "head" else replace(n, host="beta", kind="native")
        for n in spec.nodes
    )
    return replace(spec, hosts={"alpha": alpha, "beta": beta}, nodes=nodes)


@pytest.fixture
def on_beta(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Context:
    """A call on beta, in a clone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = Context(tmp_path / "clone", tmp_path / "clone" / "cluster.toml")
    made.home.mkdir()
    vars(made).update(spec=several(spec), lock=lock, here="beta")
    return made


def arguments(**given: object) -> argparse.Namespace:
    usual = {"nodes": [], "all": False, "purge": False, "ignore": [], "partial": False}
    return argparse.Namespace(**{**usual, "json": False, **given})


def test_everything_of_it_lies_where_the_controller_would_put_it(on_beta: Context) -> None:
    home = Path.home() / ".saf-env" / "local"
    assert on_beta.place == home
    assert on_beta.plan.home == home
    assert on_beta.plan.node("linux").environment.path.is_relative_to(home)
    assert on_beta.hosts().unasked == {"alpha"}
    assert [node.name for node in on_beta.own_nodes()] == ["linux"]
    assert [node.name for node in on_beta.nodes([])] == ["linux"]


def test_a_start_is_the_same_from_both_sides(
    on_beta: Context, spec: ClusterSpec, lock: Lock
) -> None:
    there = build(several(spec), lock, Path("/srv/project"), here="alpha")
    here = on_beta.plan
    digests = [[plan_digest(n, plan.address) for n in plan.nodes] for plan in (here, there)]
    assert digests[0] == digests[1]
    assert here.folder == there.folder


def test_ray_is_asked_from_a_node_of_this_machine(on_beta: Context) -> None:
    assert on_beta.gcs.via.name == "linux"


def test_where_all_hosts_have_ssh_any_machine_runs_the_cluster(
    on_beta: Context, spec: ClusterSpec
) -> None:
    vars(on_beta).update(spec=several(spec, ssh="alpha"))
    assert on_beta.controls
    assert on_beta.place == on_beta.home
    assert on_beta.hosts().unasked == set()


class Head:
    """A container on alpha that may fall back; Ray knows its ``run``."""

    def __init__(self, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        self.context, self.asked = context, 0
        spec, lock = context.spec, context.lock
        inside = replace(spec.head, kind="container", fallback="native", network="bridge")
        nodes = tuple(inside if n.role == "head" else n for n in spec.nodes)
        based = replace(lock.toolchains["head"], base_image="debian@sha256:" + "d" * 64)
        self.spec = replace(spec, nodes=nodes)
        self.lock = replace(lock, toolchains={**lock.toolchains, "head": based})
        vars(context).update(spec=self.spec, lock=self.lock)
        self.run = ""
        self.error: BringUpError | None = None
        monkeypatch.setattr(Gcs, "nodes", self.nodes)

    def nodes(self, _: float = 5.0) -> list[RayNode] | None:
        self.asked += 1
        if self.error:
            raise self.error
        node = RayNode("id", "head", self.run, True, "100.64.0.1", 1, {})
        return [node] if self.run else None

    def on_alpha(self, obstacle: str = "") -> ClusterPlan:
        reasons = {"alpha": obstacle}
        where = Path("/srv/project")
        return build(self.spec, self.lock, where, here="alpha", no_containers=reasons)

    def provisioned(self) -> None:
        """As ``check --fix`` leaves this host."""
        plan = self.context.plan
        environment = plan.node("linux").environment
        environment.python.parent.mkdir(parents=True)
        environment.python.touch()
        environment.python.chmod(0o755)
        marker = json.dumps(marker_of(environment))
        (environment.path / probe.MARKER).write_text(marker, encoding="utf-8")
        for name in (probe.MANIFEST, probe.PYTHON_MANIFEST):
            (environment.path / name).touch()
        ensure_token(plan.home, plan.name)


def test_a_head_that_fell_back_on_its_host_is_the_same_cluster(
    on_beta: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head(on_beta, monkeypatch)
    there = head.on_alpha("no Docker engine answers on this machine")
    head.run = f"{plan_digest(there.head, there.address)}.ab"
    assert on_beta.plan.head.kind == "container", "nobody can ask Ray yet"
    assert head.asked == 0

    head.provisioned()
    on_beta.plan_anew()
    here = on_beta.plan

    assert here.head.kind == "native"
    assert here.address == there.address == "100.64.0.1:6380"
    assert "alpha" in here.head.fallback_reason
    roles = {"leader": 1, "raylet": 1, "gcs": 1}
    refuse_headless(here, {"head": Found("head", head.run, roles, None)})
    digests = [[plan_digest(n, plan.address) for n in plan.nodes] for plan in (here, there)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("case", ["container", "another lock", "nothing", "refused"])
def test_any_other_head_is_planned_as_the_cluster_file_has_it(
    on_beta: Context, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    head = Head(on_beta, monkeypatch)
    there = head.on_alpha()
    runs = {"container": plan_digest(there.head, there.address), "another lock": "0" * 16}
    head.run = f"{runs[case]}.ab" if case in runs else ""
    head.error = BringUpError("it refuses the token") if case == "refused" else None
    head.provisioned()
    on_beta.plan_anew()

    assert on_beta.plan.head.kind == "container"
    assert on_beta.plan.address == there.address == "head.local.saf:6380"
    assert head.asked == 1


def test_up_is_refused_with_what_to_do(on_beta: Context) -> None:
    with pytest.raises(UsageError, match="this machine is beta, and cluster local is run") as told:
        up.run(on_beta, arguments())
    assert "saf-env join NODE" in told.value.hint


@pytest.mark.parametrize(
    ("node", "words"),
    [("head", "head is a node of alpha, and this machine is beta"), ("lin", 'no node "lin"')],
)
def test_what_is_not_of_this_machine_is_not_joined(on_beta: Context, node: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        join.run(on_beta, arguments(node=node))


def test_a_lock_made_here_would_be_another(on_beta: Context) -> None:
    with pytest.raises(LockError, match="one made here would be another") as told:
        join.run(on_beta, arguments(node="linux"))
    assert "bring lockfiles/local from alpha" in told.value.hint


@pytest.mark.parametrize("given", [{"nodes": ["head"]}, {"purge": True}])
def test_what_only_the_controller_does_is_refused(
    on_beta: Context, given: dict[str, object]
) -> None:
    with pytest.raises(UsageError) as told:
        down.run(on_beta, arguments(**given))
    assert "alpha" in told.value.hint


def test_a_suite_whose_python_is_another_hosts_is_run_there(
    on_beta: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ToolchainError("this machine has no CPython of the locked build")

    monkeypatch.setattr("saf_env.provision.environments.ensure_environment", refuse)
    assert on_beta.plan.driver.interpreter.source == "system"
    with pytest.raises(ToolchainError, match="one of the machine that locked") as told:
        make_driver(on_beta, print)
    assert told.value.hint.startswith("run `saf-env test` on alpha")

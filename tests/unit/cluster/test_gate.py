"""The gate: what it says of nodes that may not join."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster import gate
from saf_env.cluster import state as states
from saf_env.cluster.gate import gather, refuse_failed, with_ways
from saf_env.cluster.hold import Work, held_here
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.project import Project
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import BusyError, HostKeyError, HostUnreachableError, PreflightError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge, stopping
from saf_env.provision.facts import gather_facts
from saf_env.runtimes.base import Found
from saf_env.transports.base import Transport
from saf_env.uv import Uv


def test_warnings_stop_nobody() -> None:
    refuse_failed([Finding("nofile", "head", "warn", "at most 1024 open files")])


def test_a_finding_of_several_nodes_is_told_once_with_its_remedy() -> None:
    found = [
        Finding("disk", name, "fail", "the disk is full", "1 MB free", "make room")
        for name in ("head", "linux")
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message == (
        "not fit to join: head, linux. Nothing was started.\n"
        "    head, linux: disk: the disk is full\n"
        "        1 MB free\n"
        "        remedy: make room"
    )


@pytest.mark.parametrize(("check", "helps"), [("packages-locked", True), ("disk", False)])
def test_fix_is_named_only_where_it_can_help(check: str, helps: bool) -> None:
    with pytest.raises(PreflightError) as caught:
        refuse_failed([Finding(check, "head", "fail", "wrong")])

    assert ("--fix" in caught.value.hint) is helps


def test_a_requirement_that_could_not_be_judged_is_refused_with_the_reason() -> None:
    found = [
        Finding("shm", "head", "skip", "could not be judged", "no /dev/shm"),
        Finding("temp-dir", "head", "skip", "could not be judged", "PermissionError: /tmp/x"),
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message == (
        "not fit to join: head. Nothing was started.\n"
        "    head: temp-dir: could not be judged\n"
        "        PermissionError: /tmp/x"
    )
    assert "--ignore ID" in caught.value.hint


def test_what_a_failure_explains_is_not_told_again() -> None:
    absent = "/p/.saf/envs/base: there is no such file"
    found = [
        Finding("packages-locked", "head", "fail", "the environment is not installed", absent),
        Finding("python-build", "head", "skip", "could not be judged", "there is no such file"),
        Finding("python-build", "linux", "skip", "could not be judged", "there is no such file"),
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message.startswith("not fit to join: head, linux.")
    assert "    linux: python-build" in caught.value.message
    assert "    head: python-build" not in caught.value.message


def test_facts_of_containers_are_joined_and_their_engine_is_asked_once(
    plan: ClusterPlan, stalled_uv: Uv, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux = dataclasses.replace(plan.node("linux"), kind="container", fallback_reason="")
    asked: list[list[str]] = []

    def of_host(node: NodePlan, *_: object, **__: object) -> dict[str, Any]:
        return {"facts": {"platform": "host", "of": node.name}, "unknown": {"packages": "inside"}}

    def of_containers(nodes: Sequence[NodePlan], *_: object, deep: bool) -> dict[str, Any]:
        assert deep
        asked.append([node.name for node in nodes])
        inside = {"facts": {"platform": "container", "packages": []}, "unknown": {}}
        return {node.name: inside for node in nodes}

    monkeypatch.setattr(gate, "gather_facts", of_host)
    monkeypatch.setattr(gate, "container_facts", of_containers)

    def seen(*nodes: NodePlan) -> dict[str, dict[str, Any]]:
        way, runtime = cast(Transport, None), cast(Runtimes, None)
        here = Host(plan.hosts["here"], way, runtime, cast(Engine, None), Path())
        hosts = Hosts({"here": here}, plan.folder, {}, "here")
        project = SimpleNamespace(plan=plan, uv=stalled_uv, engine=None, hosts=lambda: hosts)
        return gather(cast(Project, project), nodes, deep=True)

    found = seen(linux, plan.head)
    assert list(found) == ["linux", "head"]
    assert found["linux"] == {
        "facts": {"platform": "container", "packages": [], "of": "linux", "host": "host"},
        "unknown": {},
    }
    assert found["head"] == of_host(plan.head)
    # One that fell back is told why, so its engine is asked too.
    seen(plan.head, plan.node("linux"))
    seen(plan.head)
    assert asked == [["linux"], ["linux"], []]


def test_nodes_of_one_environment_and_host_are_looked_at_in_one_go(
    plan: ClusterPlan, stalled_uv: Uv, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = plan.head
    twin, other = (dataclasses.replace(head, name=name) for name in ("twin", "other"))
    linux = plan.node("linux")
    box = dataclasses.replace(head, name="box", kind="container")
    asked: list[list[str]] = []

    def of_host(node: NodePlan, *_: object, beside: Sequence[NodePlan], **__: object) -> Any:
        asked.append([node.name, *(one.name for one in beside)])
        own = {name: {"facts": {"of": name}, "unknown": {}} for name in asked[-1]}
        first = own.pop(node.name)
        return {**first, "beside": own} if own else first

    monkeypatch.setattr(gate, "gather_facts", of_host)
    monkeypatch.setattr(gate, "container_facts", lambda *_, **__: {})
    way, runtime = cast(Transport, None), cast(Runtimes, None)
    here = Host(plan.hosts["here"], way, runtime, cast(Engine, None), Path())
    hosts = Hosts({"here": here}, plan.folder, {}, "here")
    project = SimpleNamespace(plan=plan, uv=stalled_uv, engine=None, hosts=lambda: hosts)

    found = gather(cast(Project, project), [head, linux, twin, box, other])

    assert sorted(asked) == [["box"], ["head", "twin", "other"], ["linux"]]
    assert list(found) == ["head", "linux", "twin", "box", "other"]
    assert all(seen["facts"] == {"of": name} for name, seen in found.items())


def several(plan: ClusterPlan, error: HostUnreachableError) -> tuple[Project, list[NodePlan]]:
    """A project with the head here, and two nodes on beta, which cannot be asked for ``error``."""
    linux = dataclasses.replace(plan.node("linux"), host="beta", fallback_reason="")
    box = dataclasses.replace(linux, name="box", kind="container")
    beta = dataclasses.replace(plan.hosts["here"], name="beta", ssh="beta")
    nodes = [plan.head, linux, box]
    plan = dataclasses.replace(plan, hosts={**plan.hosts, "beta": beta}, nodes=tuple(nodes))

    class Silent:
        host = "beta"

        def run(self, *_: object, **__: object) -> None:
            raise error

        def installed(self) -> bool:
            raise error

        images = facts = run

    def host(name: str) -> Host:
        way, runtime = cast(Transport, Silent()), cast(Runtimes, None)
        return Host(plan.hosts[name], way, runtime, cast(Engine, Silent()), Path("python"))

    hosts = Hosts({name: host(name) for name in plan.hosts}, plan.folder, {}, "here")
    uv = SimpleNamespace(environ={}, binary=Path("uv"))
    return cast(Project, SimpleNamespace(plan=plan, uv=uv, hosts=lambda: hosts)), nodes


@pytest.fixture
def head_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_host(node: NodePlan, cluster: ClusterPlan, *way: Any, **more: Any) -> dict[str, Any]:
        if cluster.host_of(node).here:
            return {"facts": {"platform": "seen"}, "unknown": {}, "user_variables": {}}
        return gather_facts(node, cluster, *way, **more)

    monkeypatch.setattr(gate, "gather_facts", of_host)


KEY = HostKeyError("beta: its host key is not known", changed=False, hint="`ssh beta` trusts it")


@pytest.mark.usefixtures("head_as_planned")
def test_a_host_key_that_is_not_known_is_a_finding_and_the_others_are_looked_at(
    plan: ClusterPlan,
) -> None:
    project, nodes = several(plan, KEY)

    seen = gather(project, nodes, keys=True)

    assert seen[plan.head.name]["facts"] == {"platform": "seen"}
    for node in nodes[1:]:
        found = stopping(judge(project.plan, node, seen[node.name], ()))
        told = [f for f in found if f.id == "ssh-host-key"]
        assert [(f.level, f.evidence, f.hint) for f in told] == [
            ("fail", KEY.message, "`ssh beta` trusts it")
        ]
        # What needs no look at the host is judged all the same.
        assert {f.id for f in found} <= {"ssh-host-key", "image-present", "ports-disjoint"}


@pytest.mark.usefixtures("head_as_planned")
def test_up_refuses_a_host_key_and_check_what_is_out_of_reach_for_another_reason(
    plan: ClusterPlan,
) -> None:
    project, nodes = several(plan, KEY)
    with pytest.raises(HostKeyError):
        gather(project, nodes)
    project, nodes = several(plan, HostUnreachableError("beta: it does not answer"))
    with pytest.raises(HostUnreachableError, match="does not answer"):
        gather(project, nodes, keys=True)
    assert gather(project, nodes, tolerant=True)["box"]["facts"] == {}


class Tried:
    """What the ways are tried with, on two hosts; ``roles`` are linux's processes that run."""

    def __init__(self, plan: ClusterPlan, home: Path, *roles: str) -> None:
        linux = dataclasses.replace(plan.node("linux"), host="beta")
        beta = dataclasses.replace(plan.hosts["here"], name="beta", ssh="beta")
        hosts = {**plan.hosts, "beta": beta}
        nodes = (plan.head, linux)
        self.plan = dataclasses.replace(plan, home=home, hosts=hosts, nodes=nodes)
        self.found = [Found("linux", "run", dict.fromkeys(roles, 1), None, "beta")] if roles else []
        self.calls: list[tuple[list[str], set[str]]] = []
        self.alone: Any = None
        self.folder = home / "saf-1"
        self.unasked: set[str] = set()
        self.facts: dict[str, dict[str, Any]] = {
            node.name: {"facts": {}, "unknown": {}} for node in nodes
        }

    def hosts(self) -> Hosts:
        def host(name: str) -> Host:
            found = self.found if name == "beta" else []
            runtime = cast(Runtimes, SimpleNamespace(find=lambda _: found))
            way, engine = cast(Transport, None), cast(Engine, None)
            asked = name not in self.unasked
            return Host(self.plan.hosts[name], way, runtime, engine, Path(), asked=asked)

        made = {name: host(name) for name in self.plan.hosts}
        return Hosts(made, self.folder, {"linux": "beta"}, "beta")

    def add(self, *args: Any, alone: Any, **_: object) -> None:
        _, facts, nodes, running = args
        self.calls.append(([node.name for node in nodes], set(running)))
        facts["linux"]["unknown"]["ways"] = "its host took no part"
        self.alone = alone


@pytest.mark.parametrize(
    ("roles", "part", "running"),
    [
        ((), ["head", "linux"], set()),
        (("leader", "raylet"), ["head", "linux"], {"linux"}),
        (("leader",), ["head"], set()),
        (("other",), ["head"], set()),
    ],
)
def test_a_node_that_is_starting_keeps_its_ports_to_itself(
    plan: ClusterPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    roles: tuple[str, ...],
    part: list[str],
    running: set[str],
) -> None:
    trial = Tried(plan, tmp_path, *roles)
    monkeypatch.setattr(gate, "add_ways", trial.add)

    assert with_ways(cast(Project, trial), trial.facts) == running

    assert trial.calls == [(part, running)]
    starting = trial.facts["linux"]["unknown"]["ways"].startswith("linux is starting")
    assert starting is ("linux" not in part)
    # Who is to start it has stopped what was left of it.
    with_ways(cast(Project, trial), trial.facts, trial.plan.nodes)
    assert trial.calls[1][0] == ["head", "linux"]


def test_only_who_does_not_start_nodes_holds_the_cluster_for_the_trial(
    plan: ClusterPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Tried(plan, tmp_path)
    monkeypatch.setattr(gate, "add_ways", trial.add)

    with_ways(cast(Project, trial), trial.facts, trial.plan.nodes)
    assert trial.alone is None
    trial = Tried(plan, tmp_path)
    monkeypatch.setattr(gate, "add_ways", trial.add)
    with_ways(cast(Project, trial), trial.facts)
    with (
        states.held(tmp_path, plan.name, "saf-env up"),
        pytest.raises(BusyError, match="another saf-env command is at work"),
        trial.alone,
    ):
        pass


def test_who_looks_and_who_joins_keep_each_other_out(
    plan: ClusterPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are called in two project folders, or on two hosts."""
    trial = Tried(plan, tmp_path)
    trial.unasked = {"beta"}
    monkeypatch.setattr(gate, "add_ways", trial.add)
    join = Work(plan.name, "join", tmp_path / "elsewhere")

    with_ways(cast(Project, trial), trial.facts)
    with (
        held_here(trial.folder, join, "here"),
        pytest.raises(BusyError, match=r"\(join, started .* is working on cluster local on here"),
        trial.alone,
    ):
        pass
    with_ways(cast(Project, trial), trial.facts)
    with (
        trial.alone,
        pytest.raises(BusyError, match=r"\(check, started"),
        held_here(trial.folder, join, "here"),
    ):
        pass
    assert not trial.folder.exists()

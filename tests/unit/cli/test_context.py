"""What commands have in common: the plan asks this machine's engine only where that matters."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from saf_env.cli.context import Context
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.cluster.state import ClusterState, write
from saf_env.engine import Engine
from saf_env.errors import HostUnreachableError
from saf_env.lock.model import Lock
from saf_env.plan.model import HostPlan
from saf_env.runtimes import agent
from saf_env.runtimes.base import Started
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import Transport


def context(home: Path, spec: ClusterSpec, lock: Lock, *, answers: bool) -> Context:
    """A call in ``home`` with an engine that notes in ``asked`` how often it was asked."""
    asked: list[str] = []

    def answer() -> bool:
        asked.append("asked")
        return answers

    made = Context(home, home / "cluster.toml")
    vars(made).update(
        spec=spec,
        lock=lock,
        engine=SimpleNamespace(answers=answer, is_here=lambda: True, asked=asked),
    )
    return made


def asked(made: Context) -> int:
    return len(vars(made)["engine"].asked)


def with_base(lock: Lock) -> Lock:
    linux = replace(lock.toolchains["linux"], base_image="debian@sha256:" + "d" * 64)
    return replace(lock, toolchains={**lock.toolchains, "linux": linux})


@pytest.fixture(autouse=True)
def writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hosts file that this user may write."""
    hosts = tmp_path / "etc" / "hosts"
    hosts.parent.mkdir()
    monkeypatch.setattr(agent, "HOSTS", str(hosts))
    return hosts


@pytest.mark.parametrize(("answers", "kind"), [(True, "container"), (False, "native")])
def test_this_machines_engine_decides_for_this_machine(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, answers: bool, kind: str
) -> None:
    made = context(tmp_path, spec, with_base(lock), answers=answers)
    assert made.plan.node("linux").kind == kind
    assert asked(made) == 1


@pytest.mark.parametrize("answers", [True, False, None])
def test_for_another_host_its_own_engine_is_asked(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, answers: bool | None
) -> None:
    """One that cannot be reached is told later, and is planned as the cluster file says."""

    def answer() -> bool:
        if answers is None:
            raise HostUnreachableError("there: it is gone")
        return answers

    here = replace(spec.hosts["here"], address="100.64.0.1")
    there = replace(here, name="there", address="100.64.0.2", ssh="there")
    nodes = tuple(replace(n, host="there") if n.name == "linux" else n for n in spec.nodes)
    several = replace(spec, hosts={"here": here, "there": there}, nodes=nodes)
    made = context(tmp_path, several, with_base(lock), answers=False)
    engine = cast(Engine, SimpleNamespace(answers=answer, is_here=lambda: True))
    place = HostPlan("there", "100.64.0.2", "linux-x86_64", "there", None, Path("x"))
    host = Host(place, cast(Transport, None), cast(Runtimes, None), engine, Path())
    hosts = Hosts({"there": host}, Path("/tmp/saf-1"), {}, "here")
    vars(made).update(here="here", _connections=SimpleNamespace(hosts=lambda *_: hosts))
    linux = made.plan.node("linux")
    assert linux.kind == ("native" if answers is False else "container")
    assert ("no Docker engine answers on there" in linux.fallback_reason) == (answers is False)
    assert asked(made) == 0


def test_it_is_not_asked_for_nodes_that_must_be_containers(
    spec: ClusterSpec, lock: Lock, tmp_path: Path
) -> None:
    nodes = tuple(replace(node, fallback=None) for node in spec.nodes)
    made = context(tmp_path, replace(spec, nodes=nodes), with_base(lock), answers=False)
    assert made.plan.node("linux").kind == "container"
    assert asked(made) == 0


@pytest.fixture
def not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hosts file that this user may not write; what is root's is not for root to be kept from."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@pytest.mark.usefixtures("not_ours")
def test_without_the_names_a_node_that_may_falls_back(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, writable: Path
) -> None:
    linux = context(tmp_path, spec, with_base(lock), answers=True).plan.node("linux")
    assert linux.kind == "native"
    assert "may not write its name to /etc/hosts" in linux.fallback_reason
    # The command that the user is told makes it a container.
    (command,) = re.findall(r"printf '(.*)' \| sudo tee -a /etc/hosts", linux.fallback_reason)
    writable.write_text(command.replace("\\n", "\n"))
    assert context(tmp_path, spec, with_base(lock), answers=True).plan.node("linux").kind == (
        "container"
    )


@pytest.mark.usefixtures("not_ours")
def test_a_node_that_must_be_a_container_stays_one(
    spec: ClusterSpec, lock: Lock, tmp_path: Path
) -> None:
    nodes = tuple(replace(node, fallback=None) for node in spec.nodes)
    made = context(tmp_path, replace(spec, nodes=nodes), with_base(lock), answers=True)
    assert made.plan.node("linux").kind == "container"


@pytest.mark.usefixtures("not_ours")
def test_names_that_others_have_written_do_as_well(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, writable: Path
) -> None:
    writable.write_text("127.0.0.2 linux.local.saf x\n127.0.0.2\thead.local.saf # mine\n")
    made = context(tmp_path, spec, with_base(lock), answers=True)
    assert made.plan.node("linux").kind == "container"
    writable.write_text("127.0.0.2 linux.local.saf head.local.saf\n10.0.0.1 head.local.saf\n")
    made = context(tmp_path, spec, with_base(lock), answers=True)
    assert made.plan.node("linux").kind == "native"


def test_what_was_started_natively_stays_so_when_an_engine_comes(
    spec: ClusterSpec, lock: Lock, tmp_path: Path
) -> None:
    started = ClusterState().with_started(Started("linux", "run", 7, "1"))
    write(tmp_path, spec.name, started)
    linux = context(tmp_path, spec, with_base(lock), answers=True).plan.node("linux")
    assert (linux.kind, "`saf-env down`, then `saf-env up`" in linux.fallback_reason) == (
        "native",
        True,
    )
    write(tmp_path, spec.name, started.without(["linux"]))
    assert context(tmp_path, spec, with_base(lock), answers=True).plan.node("linux").kind == (
        "container"
    )

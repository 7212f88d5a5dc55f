"""Hosts used as one: asked side by side, stopped in order, and told of when they are lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from saf_env.cluster.connect import this_host
from saf_env.cluster.hosts import Host, Hosts, refuse_lost
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import HostUnreachableError, NoProgramError
from saf_env.plan.build import build
from saf_env.plan.model import ClusterPlan, HostPlan
from saf_env.runtimes.base import Found, Started
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import Transport


class Fake:
    """What runs the nodes of one host, and notes in ``log`` what it is asked."""

    def __init__(self, host: str, nodes: Sequence[str], log: list[tuple[Any, ...]]) -> None:
        self.host, self.nodes, self.log = host, list(nodes), log
        self.error: Exception | None = None

    def find(self, recorded: Sequence[Started]) -> list[Found]:
        if self.error:
            raise self.error
        assert all(one.host == self.host for one in recorded)
        return [Found(n, "r", {"leader": 1}, Started(n, "r", 1, "1")) for n in self.nodes]

    def close(self) -> None:
        self.log.append((self.host, "closed"))

    def stop(self, names: Sequence[str], recorded: Sequence[Started], *, head: bool) -> list[str]:
        if self.error:
            raise self.error
        self.log.append((self.host, head))
        stopped = [n for n in self.nodes if not names or n in names]
        self.nodes = [n for n in self.nodes if n not in stopped]
        return stopped


class Three:
    """Three hosts with a node each; the head's is in the middle."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.fakes = {h: Fake(h, [f"{h}-node"], self.log) for h in ("alpha", "beta", "gamma")}
        plans = {h: HostPlan(h, h, "linux-x86_64", h, None, Path(h)) for h in self.fakes}
        hosts = {
            h: Host(
                plans[h], cast(Transport, fake), cast(Runtimes, fake), cast(Engine, None), Path()
            )
            for h, fake in self.fakes.items()
        }
        places = {f"{h}-node": h for h in self.fakes}
        self.hosts = Hosts(hosts, Path("/tmp/saf-1"), places, "beta")
        self.recorded = [Started(f"{h}-node", "r", 1, "1", h) for h in self.fakes]


@pytest.fixture
def three() -> Three:
    return Three()


LOST = HostUnreachableError("gamma: no route", hint="plug it in")


def test_what_runs_is_known_with_its_host(three: Three) -> None:
    found = three.hosts.look(three.recorded)[0]
    assert {f.node: f.host for f in found} == {f"{h}-node": h for h in three.fakes}
    assert all(f.leader and f.leader.host == f.host for f in found)


def test_a_node_is_where_it_belongs_whoever_else_sees_it(three: Three) -> None:
    """A host that is a container on another one: its processes are seen from there too."""
    three.fakes["alpha"].nodes.append("beta-node")
    three.fakes["gamma"].nodes.append("left-node")
    found = {f.node: f.host for f in three.hosts.look()[0]}
    assert len(three.hosts.look()[0]) == 4
    assert found == {**{f"{h}-node": h for h in three.fakes}, "left-node": "gamma"}
    three.fakes["beta"].nodes.clear()
    assert ("beta-node", "alpha") in {(f.node, f.host) for f in three.hosts.look()[0]}


def test_where_nothing_of_ours_ever_was_nothing_runs(three: Three) -> None:
    three.fakes["beta"].error = NoProgramError("beta: no such program")
    assert {f.host for f in three.hosts.look()[0]} == {"alpha", "gamma"}
    assert three.hosts.stop(["beta-node"], []) == ([], {})


def test_a_lost_host_keeps_the_others_from_nothing(three: Three) -> None:
    three.fakes["gamma"].error = LOST
    found, lost = three.hosts.look(three.recorded)
    assert {f.host for f in found} == {"alpha", "beta"}
    assert lost == {"gamma": LOST}
    with pytest.raises(HostUnreachableError, match="gamma: no route"):
        refuse_lost(lost)


def test_the_heads_host_is_stopped_last(three: Three) -> None:
    assert three.hosts.stop([], three.recorded)[0] == ["alpha-node", "beta-node", "gamma-node"]
    # Workers sign off at a head elsewhere; the head's own host looks for itself.
    assert sorted(three.log[:2]) == [("alpha", True), ("gamma", True)]
    assert three.log[2] == ("beta", False)


def test_only_the_hosts_of_what_is_named_are_asked(three: Three) -> None:
    three.fakes["gamma"].error = LOST
    assert three.hosts.stop(["alpha-node"], three.recorded) == (["alpha-node"], {})
    assert three.hosts.stop(["beta-node"], three.recorded) == (["beta-node"], {})
    assert three.hosts.stop(["nobody-knows"], three.recorded)[1].keys() == {"gamma"}


def test_what_is_left_on_a_lost_host_is_told_when_the_rest_is_done(three: Three) -> None:
    three.fakes["gamma"].error = LOST
    stopped, lost = three.hosts.stop([], three.recorded)
    assert stopped == ["alpha-node", "beta-node"]
    assert lost["gamma"].message.endswith("\ngamma-node may still run on gamma")
    assert lost["gamma"].hint == "plug it in; then run `saf-env down` again"
    assert {host for host, _ in three.log} == {"alpha", "beta"}


def test_nothing_is_stopped_or_started_where_the_lock_is_lost(
    three: Three, plan: ClusterPlan
) -> None:
    def lose() -> None:
        raise LOST

    three.hosts.held["gamma"] = lose
    stopped, lost = three.hosts.stop([], three.recorded)
    assert stopped == ["alpha-node", "beta-node"]
    assert lost["gamma"].message.startswith("gamma: no route\n")
    there = dataclasses.replace(plan.head, host="gamma")
    with pytest.raises(HostUnreachableError, match="gamma: no route"):
        three.hosts.start(there, plan.address, "run")
    with pytest.raises(HostUnreachableError, match="gamma: no route"):
        three.hosts.start_containers(plan, [there], {})


def test_who_is_interrupted_gives_up_the_connections_and_still_stops(three: Three) -> None:
    def lose() -> None:
        raise LOST

    def interrupt(_: Host) -> None:
        raise KeyboardInterrupt

    three.hosts.held.update(dict.fromkeys(three.fakes, lose))
    with pytest.raises(KeyboardInterrupt):
        three.hosts.ask(three.fakes, interrupt)
    assert three.log == [(host, "closed") for host in three.fakes]
    assert three.hosts.stop([], [])[0] == ["alpha-node", "beta-node", "gamma-node"]


def test_one_reason_of_several_hosts_is_told_once() -> None:
    errors = {
        name: HostUnreachableError(f"{LOST.message}\n{name} is left", hint="plug it in")
        for name in ("alpha", "beta")
    }
    with pytest.raises(HostUnreachableError) as told:
        refuse_lost(errors)
    assert told.value.message == "gamma: no route\nalpha is left\nbeta is left"
    assert told.value.hint == "plug it in"


def several(spec: ClusterSpec, **hosts: tuple[str, str | None]) -> ClusterSpec:
    """``spec`` with a node on each of ``hosts``, which have an address and ssh."""
    here = spec.hosts["here"]
    made = {
        name: dataclasses.replace(here, name=name, address=address, ssh=ssh)
        for name, (address, ssh) in hosts.items()
    }
    nodes = tuple(
        dataclasses.replace(node, host=name) for node, name in zip(spec.nodes, hosts, strict=True)
    )
    return dataclasses.replace(spec, hosts=made, nodes=nodes)


def test_this_machine_is_the_host_with_its_address(spec: ClusterSpec) -> None:
    there, here = ("100.64.0.9", None), ("127.0.0.1", "beta")
    assert this_host(several(spec, alpha=there, beta=here)) == "beta"
    assert this_host(several(spec, alpha=("100.64.0.9", "a"), beta=("100.64.0.8", None))) == "beta"
    assert this_host(several(spec, alpha=("127.0.0.1", None), beta=("127.0.0.2", "b"))) == "alpha"
    assert this_host(spec) == "here"


def test_a_cluster_of_several_hosts_is_the_same_from_all_of_them(
    spec: ClusterSpec, lock: Any
) -> None:
    wide = several(spec, alpha=("100.64.0.9", None), beta=("100.64.0.8", "beta"))
    alpha = build(wide, lock, Path("/a"), here="alpha")
    beta = build(wide, lock, Path("/b/c"), here="beta")
    assert alpha.folder == beta.folder
    assert alpha.address == beta.address
    assert alpha.hosts["beta"].home == Path(".saf-env/local")
    assert (beta.hosts["beta"].home, beta.hosts["beta"].ssh) == (Path("/b/c"), "")
    assert beta.hosts["alpha"].ssh == "100.64.0.9", "the one without ssh is reached by its address"
    for one, other in zip(alpha.nodes, beta.nodes, strict=True):
        assert one.variables == other.variables
        assert one.fingerprint == other.fingerprint

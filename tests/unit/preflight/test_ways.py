"""Ways between hosts: what is said of those that are closed, and what would open them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.plan.model import ClusterPlan, HostPlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan

PORTS = {"node manager": 4, "object manager": 5, "first worker": 12, "last worker": 19}
ADDRESSES = {"alpha": "10.0.0.1", "beta": "10.0.0.2", "gamma": "fd00::3"}


def plan_of(*, platform: str = "linux-x86_64", **changes: Any) -> ClusterPlan:
    """A head on alpha, ``beta`` (with ``changes``) and ``gamma``, each on the host of its name."""
    head = make_node("head", 6380, host="alpha", address=ADDRESSES["alpha"])
    beta = make_node("beta", 6480, host="beta", address=ADDRESSES["beta"])
    gamma = make_node("gamma", 6580, host="gamma", address=ADDRESSES["gamma"])
    nodes = (head, dataclasses.replace(beta, **changes), gamma)
    hosts = {
        name: HostPlan(name, address, platform, "", None, head.temp_dir)
        for name, address in ADDRESSES.items()
    }
    return dataclasses.replace(make_plan(*nodes), hosts=hosts)


def way(plan: ClusterPlan, host: str, node: str, **changes: Any) -> dict[str, Any]:
    """An open way; ``why`` closes all its ports, ``closed`` some of them by kind."""
    why, closed = changes.pop("why", ""), changes.pop("closed", {})
    target = plan.node(node)
    first = target.ports.node_manager - 4
    ports = {kind: [first + number, closed.get(kind, why)] for kind, number in PORTS.items()}
    if node == "head":
        ports["GCS"] = [6380, closed.get("GCS", why)]
    known = {"host": host, "node": node, "address": target.address, "running": False}
    return {**known, "ports": ports, "ms": 0.4, "rate": 1e8, **changes}


def verdict(
    check: str, plan: ClusterPlan, of: str, *ways: dict[str, Any], **absent: str
) -> Finding:
    node = plan.node(of)
    facts = make_facts(node)
    facts["facts"]["ways"] = {"ways": list(ways), "absent": absent}
    (found,) = judge(plan, node, facts, (), only=[check])
    return found


def test_open_ways() -> None:
    plan = plan_of()
    ways = way(plan, "beta", "head"), way(plan, "alpha", "beta")
    found = {
        check: verdict(check, plan, "beta", *ways)
        for check in ("head-reachable", "peer-matrix", "latency", "bandwidth")
    }
    assert {f.level for f in found.values()} == {"ok"}
    assert found["head-reachable"].summary == "the head's GCS port can be reached"
    assert found["peer-matrix"].summary == "2 ways between hosts are open"
    assert found["latency"].summary == "other hosts are at most 0.4 ms away"
    assert found["bandwidth"].summary == "at least 100 MB/s to other hosts"


def test_a_head_that_runs_is_asked_itself() -> None:
    plan = plan_of()
    up = way(plan, "beta", "head", running=True)
    assert verdict("head-reachable", plan, "beta", up).summary == "the head's GCS answers"
    assert verdict("head-reachable", plan, "head").summary == "the head is on the same host"


def test_a_head_that_is_not_reached() -> None:
    plan = plan_of()
    closed = way(plan, "beta", "head", closed={"GCS": "silent"})
    found = verdict("head-reachable", plan, "beta", closed)
    assert (found.level, found.evidence) == ("fail", "no answer")
    assert found.summary == "host beta does not reach the head's GCS at 10.0.0.1, port 6380"
    assert found.hint.startswith("open TCP ports 6380 of host alpha to 10.0.0.2: `sudo ufw allow")
    assert verdict("peer-matrix", plan, "beta", closed).level == "ok", "it would be told twice"


def test_a_head_of_which_nothing_is_known() -> None:
    found = verdict("head-reachable", plan_of(), "beta", alpha="alpha: no route to host")
    assert (found.level, found.evidence) == ("skip", "alpha: no route to host")


def test_every_closed_way_is_told_with_what_was_seen_on_which_ports() -> None:
    plan = plan_of()
    ways = [
        way(plan, "beta", "head", why="silent"),
        way(plan, "alpha", "beta", closed={"object manager": "refused", "last worker": "other"}),
        way(plan, "gamma", "beta"),
    ]
    found = verdict("peer-matrix", plan, "beta", *ways)
    assert (found.level, found.summary) == ("fail", "2 ways between hosts are closed")
    assert found.evidence == (
        "beta to head: no answer on all 4 ports tried; alpha to beta: refused on 6485 (object "
        "manager), another service answers on 6499 (last worker)"
    )
    assert "open TCP ports 6384-6399 of host alpha to 10.0.0.2" in found.hint
    assert "open TCP ports 6484-6499 of host beta to 10.0.0.1" in found.hint
    assert "--ignore" not in found.hint


@pytest.mark.parametrize(
    ("why", "said", "remedy"),
    [
        ("other", "another service answers", "end what answers at 10.0.0.2 in place of beta"),
        ("No route to host", "No route to host", "see that host alpha has a way to 10.0.0.2"),
    ],
)
def test_what_no_firewall_is_to_blame_for(why: str, said: str, remedy: str) -> None:
    plan = plan_of()
    found = verdict("peer-matrix", plan, "head", way(plan, "alpha", "beta", why=why))
    assert said in found.evidence
    assert found.hint.startswith(remedy)


def test_remedies_are_those_of_the_host() -> None:
    plan = plan_of()
    found = verdict("peer-matrix", plan, "beta", way(plan, "gamma", "beta", why="refused"))
    assert "`sudo ufw allow proto tcp from fd00::3 to any port 6484:6499`" in found.hint
    assert 'family="ipv6" source address="fd00::3" port port="6484-6499"' in found.hint
    mac = plan_of(platform="macos-arm64")
    found = verdict("peer-matrix", mac, "beta", way(mac, "alpha", "beta", why="silent"))
    assert found.hint.endswith("Network, Firewall, allow Python to be connected to")


def test_ufw_does_not_see_the_ports_of_containers() -> None:
    plan = plan_of(kind="container", network="bridge")
    closed = way(plan, "alpha", "beta", why="silent")
    assert "--ignore peer-matrix" in verdict("peer-matrix", plan, "head", closed).hint


def test_hosts_that_took_no_part() -> None:
    plan = plan_of()
    found = verdict("peer-matrix", plan, "beta", way(plan, "beta", "head"), gamma="it sleeps")
    assert (found.level, found.evidence) == ("ok", "without gamma: it sleeps")
    found = verdict("peer-matrix", plan, "beta", gamma="it sleeps")
    assert (found.level, found.evidence) == ("skip", "without gamma: it sleeps")
    assert verdict("peer-matrix", plan, "beta").summary == "no other host takes part"


def test_far_and_slow_hosts() -> None:
    plan = plan_of()
    ways = [
        way(plan, "beta", "head", ms=20.1, rate=9.9e6),
        way(plan, "beta", "gamma", ms=3.0, rate=None),
        way(plan, "alpha", "beta", ms=500.0, rate=1.0),  # for alpha to tell
    ]
    found = verdict("latency", plan, "beta", *ways)
    assert (found.level, found.evidence) == ("warn", "20.1 ms to alpha")
    assert "tailscale status" in found.hint
    found = verdict("bandwidth", plan, "beta", *ways)
    assert (found.level, found.evidence) == ("warn", "9.9 MB/s to alpha")


def test_what_was_not_measured() -> None:
    plan = plan_of()
    up = way(plan, "beta", "head", running=True, rate=None)
    assert verdict("bandwidth", plan, "beta", up).level == "ok"
    shut = way(plan, "beta", "head", why="silent", ms=None, rate=None)
    assert verdict("latency", plan, "beta", shut).level == "skip"


def test_a_node_in_the_tailnet_only_has_no_ways_yet() -> None:
    plan = plan_of(kind="container", network="tailscale")
    node: NodePlan = plan.node("beta")
    checks = ["head-reachable", "peer-matrix", "latency", "bandwidth"]
    assert judge(plan, node, make_facts(node), (), only=checks) == []

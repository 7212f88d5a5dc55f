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
    return {**known, "ports": ports, "ms": 0.4, "burst": True, "rate": 1e8, **changes}


def verdict(
    check: str, plan: ClusterPlan, of: str, *ways: dict[str, Any], **absent: str
) -> Finding:
    node = plan.node(of)
    facts = {each.name: make_facts(each) for each in plan.nodes}
    facts[of]["facts"]["ways"] = {"ways": list(ways), "absent": absent}
    seen = facts["beta"]["facts"]
    if plan.host_of(plan.node("beta")).platform == "macos-arm64":
        seen["firewall"] = {"on": True, "programs": [["/p/python3", False], ["/p/raylet", True]]}
    (found,) = judge(plan, node, facts[of], (), only=[check], together=facts)
    return found


def test_open_ways() -> None:
    plan = plan_of()
    ways = way(plan, "beta", "head"), way(plan, "alpha", "beta")
    found = {
        check: verdict(check, plan, "beta", *ways)
        for check in ("head-reachable", "peer-matrix", "latency", "bandwidth", "mtu")
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


@pytest.mark.parametrize("running", [False, True])
def test_one_way_is_no_ways(running: bool) -> None:
    plan = plan_of()
    ways = way(plan, "beta", "head", running=running), way(plan, "alpha", "beta", why="silent")
    assert verdict("peer-matrix", plan, "beta", *ways).summary == "1 way between hosts is closed"
    found = verdict("peer-matrix", plan, "beta", ways[0])
    assert found.summary == "1 way between hosts is open"


def test_who_joins_is_told_that_nobody_calls_it() -> None:
    plan = plan_of()
    to_head, to_beta = way(plan, "beta", "head", running=True), way(plan, "alpha", "beta")
    found = verdict("peer-matrix", plan, "beta", to_head)
    assert (found.level, found.evidence) == (
        "ok",
        "ways to this host are not tried from here; `saf-env check` where the cluster is run from "
        "tries them",
    )
    assert verdict("peer-matrix", plan, "beta", to_head, to_beta).evidence == ""


@pytest.mark.parametrize("check", ["head-reachable", "peer-matrix"])
def test_where_a_node_should_run_and_nothing_listens_it_is_to_be_brought_up(check: str) -> None:
    plan = plan_of()
    up = way(plan, "beta", "head", running=True, why="refused")
    found = verdict(check, plan, "beta", up)
    assert found.level == "fail"
    assert found.hint.startswith("nothing listens there: `saf-env up head`")
    assert "ufw" not in found.hint
    silent = verdict(check, plan, "beta", {**up, **way(plan, "beta", "head", why="silent")})
    assert "ufw" in silent.hint


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
    assert found.hint.endswith("Network > Firewall > Options, let in /p/python3, /p/raylet")
    found = verdict("peer-matrix", mac, "beta", way(mac, "beta", "gamma", why="silent"))
    assert found.hint.endswith("let in python, raylet and gcs_server of /p/.saf/envs/base-k")
    mac = plan_of(platform="macos-arm64", kind="container", network="bridge")
    found = verdict("peer-matrix", mac, "beta", way(mac, "alpha", "beta", why="silent"))
    assert "let in what publishes the ports of containers" in found.hint


MAC = {"platform": "macos-arm64"}
BRIDGE = {"kind": "container", "network": "bridge"}


@pytest.mark.parametrize(
    ("changes", "why", "running", "level"),
    [
        (MAC, "refused", False, "warn"),
        (MAC, "silent", False, "warn"),
        (MAC, "silent", True, "fail"),  # this is the node itself
        (MAC, "other", False, "fail"),
        (MAC, "No route to host", False, "fail"),
        (BRIDGE, "refused", False, "warn"),
        (BRIDGE, "silent", False, "warn"),
        (BRIDGE, "silent", True, "fail"),
        (BRIDGE, "other", False, "fail"),
        ({"kind": "container", "network": "host"}, "silent", False, "fail"),
        ({}, "refused", False, "fail"),
        ({}, "silent", False, "fail"),
    ],
)
def test_what_another_program_was_refused_is_no_proof_against_a_node(
    changes: dict[str, Any], why: str, running: bool, level: str
) -> None:
    plan = plan_of(**changes)
    closed = way(plan, "alpha", "beta", why=why, running=running)
    found = verdict("peer-matrix", plan, "head", closed)
    assert found.level == level
    if level == "warn":
        assert found.summary == "1 way between hosts may be closed"
        assert "what listened" in found.hint
        assert "Where they stay closed once the nodes run: open TCP ports 6484" in found.hint


def test_a_way_that_is_closed_for_sure_is_a_failure_beside_one_that_is_not() -> None:
    plan = plan_of(**BRIDGE)
    ways = way(plan, "alpha", "beta", why="silent"), way(plan, "alpha", "gamma", why="silent")
    found = verdict("peer-matrix", plan, "head", *ways)
    assert (found.level, found.summary) == ("fail", "2 ways between hosts are closed")


def test_a_mac_that_may_let_others_to_its_head() -> None:
    plan = plan_of(**MAC)
    closed = way(plan, "beta", "head", closed={"GCS": "silent"})
    found = verdict("head-reachable", plan, "beta", closed)
    assert found.level == "warn"
    assert found.summary == "host beta may not reach the head's GCS at 10.0.0.1, port 6380"
    assert found.hint.startswith("the firewall of a Mac decides by program")
    assert verdict("head-reachable", plan, "beta", {**closed, "running": True}).level == "fail"


def test_hosts_that_took_no_part() -> None:
    plan = plan_of()
    found = verdict("peer-matrix", plan, "beta", way(plan, "beta", "head"), gamma="it sleeps")
    assert (found.level, found.evidence) == ("ok", "without gamma: it sleeps")
    found = verdict("peer-matrix", plan, "beta", gamma="it sleeps")
    assert (found.level, found.summary) == ("ok", "no other host takes part")
    assert found.evidence == "without gamma: it sleeps"
    assert verdict("peer-matrix", plan, "beta").summary == "no other host takes part"


def test_a_host_that_took_no_part_itself() -> None:
    plan = plan_of()
    facts = make_facts(plan.node("beta"))
    facts["unknown"]["ways"] = "it sleeps"
    (found,) = judge(plan, plan.node("beta"), facts, (), only=["peer-matrix"])
    assert (found.level, found.evidence) == ("skip", "it sleeps")


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


def test_packets_that_are_too_large() -> None:
    plan = plan_of()
    found = verdict("mtu", plan, "beta", way(plan, "beta", "head", rate=None))
    assert (found.level, found.evidence) == ("warn", "beta to head: connected, and nothing more")
    assert "ping -M do -s 1472 10.0.0.1" in found.hint
    assert verdict("mtu", plan, "beta", way(plan, "beta", "head")).level == "ok"
    shut = way(plan, "beta", "head", why="silent", ms=None, rate=None)
    assert verdict("mtu", plan, "beta", shut).level == "ok", "it would be told twice"
    unsent = way(plan, "beta", "head", burst=False, rate=None)
    assert verdict("mtu", plan, "beta", unsent).summary == "nothing was sent to other hosts"


def test_what_was_not_measured() -> None:
    plan = plan_of()
    up = way(plan, "beta", "head", running=True, rate=None)
    assert verdict("bandwidth", plan, "beta", up).level == "ok"
    shut = way(plan, "beta", "head", why="silent", ms=None, rate=None)
    assert verdict("latency", plan, "beta", shut).level == "skip"


def test_a_node_in_the_tailnet_only_has_no_ways_yet() -> None:
    plan = plan_of(kind="container", network="tailscale")
    node: NodePlan = plan.node("beta")
    checks = ["head-reachable", "peer-matrix", "latency", "bandwidth", "mtu"]
    assert judge(plan, node, make_facts(node), (), only=checks) == []

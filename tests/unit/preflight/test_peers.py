"""Checks of hosts against each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.plan.model import ClusterPlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan

NAMES = ("alpha", "beta", "gamma")


def plan_of(*hosts: str) -> ClusterPlan:
    nodes = [
        dataclasses.replace(make_node(host, 6380 + 100 * i), host=host)
        for i, host in enumerate(hosts)
    ]
    return make_plan(*nodes)


def verdict(check: str, plan: ClusterPlan, changes: dict[str, dict[str, Any]], of: str) -> Finding:
    """What a check says of the node ``of``; ``changes`` are facts by node."""
    facts = {node.name: make_facts(node) for node in plan.nodes}
    for name, changed in changes.items():
        for fact, values in changed.items():
            facts[name]["facts"][fact].update(values)
    (found,) = judge(plan, plan.node(of), facts[of], (), only=[check], together=facts)
    return found


@pytest.mark.parametrize(
    ("offset", "within", "level"),
    [
        (0.0, 0.0, "ok"),
        (1.9, 0.0, "ok"),
        (-2.2, 0.1, "warn"),
        (2.5, 1.0, "ok"),  # it may as well be right
        (300.0, 0.2, "fail"),
        (-31.0, 0.2, "fail"),
    ],
)
def test_a_clock_against_the_middle(offset: float, within: float, level: str) -> None:
    wrong = {"gamma": {"clock": {"offset": offset, "within": within}}}
    found = verdict("clock", plan_of(*NAMES), wrong, "gamma")
    assert found.level == level
    assert ("timedatectl" in found.hint) is (level != "ok")
    assert verdict("clock", plan_of(*NAMES), wrong, "alpha").level == "ok"


def test_the_controllers_own_clock_may_be_the_wrong_one() -> None:
    wrong = {name: {"clock": {"offset": 100.0}} for name in ("beta", "gamma")}
    assert verdict("clock", plan_of(*NAMES), wrong, "alpha").level == "fail"
    assert verdict("clock", plan_of(*NAMES), wrong, "beta").level == "ok"


def test_one_host_has_one_clock() -> None:
    assert verdict("clock", plan_of("alpha"), {}, "alpha").summary == "one host, one clock"


def test_names_of_hosts() -> None:
    same = {name: {"platform": {"hostname": "Mac-Studio.local"}} for name in ("alpha", "gamma")}
    found = verdict("hostname", plan_of(*NAMES), same, "alpha")
    assert (found.level, found.summary) == ("warn", "host gamma is called Mac-Studio.local too")
    assert verdict("hostname", plan_of(*NAMES), same, "beta").level == "ok"
    assert verdict("hostname", plan_of(*NAMES), {}, "alpha").level == "ok"

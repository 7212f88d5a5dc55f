"""What cannot be judged: it stops a join where it could have failed, and nowhere else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Check, Finding
from saf_env.preflight.registry import CHECKS, judge, may_join, stopping, to_json
from saf_env.provision.image_facts import OF_ENVIRONMENT
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan
from tests.unit.preflight.test_docker import make_container, make_container_facts

NODE = make_node("head", 6380)


def blind(reason: str, *names: str) -> dict[str, Any]:
    """The facts of a container node less those called ``names`` (default: all)."""
    facts = make_container_facts(make_container())
    for name in names or tuple(facts["facts"]):
        del facts["facts"][name]
        facts["unknown"][name] = reason
    return facts


def _id(check: Check) -> str:
    return check.id


def judged(facts: dict[str, Any], node: NodePlan = NODE, **more: Any) -> list[Finding]:
    return judge(make_plan(node), node, facts, (), **more)


@pytest.mark.parametrize("check", [check for check in CHECKS if check.level == "fail"], ids=_id)
def test_a_requirement_without_facts_stops_a_join_unless_ignored(check: Check) -> None:
    node = NODE if check.applies(NODE) else make_container()
    (found,) = judged(blind("OSError: no"), node, only=[check.id])
    assert may_join([found]) == to_json([found])["ok"] == (found.level == "ok")
    (ignored,) = judged(blind("OSError: no"), node, only=[check.id], ignore=[check.id])
    assert may_join([ignored])
    if found.level == "skip":
        assert (ignored.level, ignored.evidence) == ("warn", "OSError: no")
        assert ignored.summary == "could not be judged (ignored as asked)"


def test_what_needs_no_facts_is_judged_without() -> None:
    found = {finding.id for finding in judged(blind("")) if finding.level == "ok"}
    assert found >= {"lock-fresh", "memory", "environment-variables", "ports-disjoint"}
    mac = make_node("head", 6380, "macos-arm64")
    assert [finding.level for finding in judged(blind(""), mac, only=["shm"])] == ["ok"]
    greedy = dataclasses.replace(NODE, memory=2**30)
    assert [finding.level for finding in judged(blind(""), greedy, only=["memory"])] == ["skip"]


def test_a_wish_that_cannot_be_judged_stops_nobody() -> None:
    found = judged(blind("OSError: no", "shm"))
    assert [finding.id for finding in found if finding.level == "skip"] == ["shm"]
    assert may_join(found)


def test_an_absent_environment_is_told_once() -> None:
    environment = OF_ENVIRONMENT
    found = judged(blind("there is no such file", *environment))
    assert sum(finding.level == "skip" for finding in found) == 9
    assert [finding.id for finding in stopping(found)] == ["packages-locked"]
    found = judged(blind("there is no such file", *environment), ignore=["packages-locked"])
    assert len(stopping(found)) == 9


def test_ports_for_the_workers_of_all_cpus() -> None:
    node = dataclasses.replace(NODE, cpus=None)  # with 8 ports for workers and drivers
    facts = make_facts(node)
    for cpus, level in ((4, "ok"), (5, "warn")):
        facts["facts"]["platform"]["cpus"] = cpus
        (found,) = judged(facts, node, only=["worker-ports"])
        assert found.level == level
    assert found.evidence == "5 CPUs, 8 ports for workers and drivers"
    assert "cluster.ports_per_node to 21 or more, or cpus of the node to 4" in found.hint
    (planned,) = judged(facts, NODE, only=["worker-ports"])
    assert planned.level == "ok"

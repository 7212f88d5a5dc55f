"""Checks of the CPUs and the memory that a host has for its nodes."""

from __future__ import annotations

from tests.unit.preflight.test_checks import (
    GIB,
    changed,
    make_facts,
    make_node,
    make_plan,
    verdict,
)


def test_cpus_of_a_node_and_of_its_host() -> None:
    many = make_node("head", 6380, cpus=3)
    found = verdict("cpu", make_facts(many), many)
    assert (found.level, found.evidence) == ("fail", "the host has 2")
    two, other = make_node("head", 6380, cpus=2), make_node("linux", 6480)
    found = verdict("cpu", make_facts(two), two, plan=make_plan(two, other))
    assert found.level == "warn"
    assert found.summary == "3 CPUs are planned for nodes head, linux together"
    every = make_node("head", 6380, cpus=None)
    assert verdict("cpu", make_facts(every), every).level == "ok"


def test_memory_that_is_swapped_out() -> None:
    node = make_node("head", 6380)
    full = changed(make_facts(node), "swap", {"total": 8 * GIB, "used": 7 * GIB})
    found = verdict("swap", full, node)
    assert (found.level, found.evidence) == ("warn", "7.0 GiB swapped out, 64.0 GiB of memory")
    none = changed(make_facts(node), "swap", {"total": 0, "used": 0})
    assert verdict("swap", none, node).summary == "no swap"

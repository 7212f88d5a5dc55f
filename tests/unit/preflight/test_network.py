"""The address of a host, seen on the host itself, and the ports of its nodes."""

from __future__ import annotations

import dataclasses
from typing import Any

from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge, may_join, stopping
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan
from tests.unit.preflight.test_checks import verdict as of_one
from tests.unit.preflight.test_peers import plan_of, verdict

PLAN = plan_of("alpha", "beta")


def of_beta(address: str, resolved: list[str], own: list[str], **more: Any) -> Finding:
    """What is said of host beta, whose address means ``resolved`` there."""
    known = {"address": address, "resolved": resolved, "own": own}
    seen = {**known, "outgoing": [], "default": "", **more}
    alpha = {"address": "10.0.0.1", "resolved": ["10.0.0.1"], "own": ["10.0.0.1"]}
    facts = {"alpha": {"address": alpha}, "beta": {"address": seen}}
    return verdict("address", PLAN, facts, "beta")


def test_an_address_and_a_name_that_are_the_host_s_own() -> None:
    assert of_beta("10.0.0.2", ["10.0.0.2"], ["10.0.0.2"]).level == "ok"
    found = of_beta("beta.lan", ["10.0.0.2"], ["10.0.0.2"])
    assert (found.level, found.evidence) == ("ok", "10.0.0.2")


def test_an_address_of_another_machine() -> None:
    found = of_beta("10.0.0.9", ["10.0.0.9"], [], outgoing=["10.0.0.2"])
    assert (found.level, found.summary) == ("fail", "10.0.0.9 is not an address of this host")
    assert "it reaches the others from 10.0.0.2" in found.hint
    found = of_beta("beta.lan", ["10.0.0.9"], [])
    assert found.summary == "beta.lan is 10.0.0.9, which is not an address of this host"


def test_a_name_that_leads_to_loopback() -> None:
    for place in ("127.0.1.1", "::1"):
        found = of_beta("beta", [place], [place])
        assert found.level == "fail"
        assert f"on beta it is {place}, of the loopback interface" in found.evidence
        assert f"take beta out of the line of {place} in /etc/hosts on beta" in found.hint
    assert of_beta("beta", ["10.0.0.2", "127.0.1.1"], ["10.0.0.2", "127.0.1.1"]).level == "fail"
    for wrong in ("127.0.0.2", "localhost"):  # neither is a line's fault
        written = of_beta(wrong, ["127.0.0.2"], ["127.0.0.2"])
        assert written.level == "fail"
        assert "correct the address of host beta" in written.hint


def test_one_host_may_be_at_loopback() -> None:
    seen = {"alpha": {"address": {"resolved": ["127.0.0.2"], "own": ["127.0.0.2"]}}}
    assert verdict("address", plan_of("alpha"), seen, "alpha").level == "ok"


def test_two_hosts_that_are_one() -> None:
    found = of_beta("beta", ["10.0.0.1"], ["10.0.0.1"])
    assert (found.level, found.summary) == ("fail", "host alpha has the same address")


def test_a_name_that_also_leads_elsewhere() -> None:
    found = of_beta("beta", ["10.0.0.2", "10.0.9.9"], ["10.0.0.2"])
    assert (found.level, found.evidence) == ("warn", "10.0.9.9 on beta")


def test_a_name_that_means_nothing() -> None:
    found = of_beta("beta", [], [])
    assert (found.level, found.summary) == ("fail", "beta is not known on the host itself")


def test_a_wrong_address_is_one_failure() -> None:
    head = make_node("head", 6380)
    for resolved in (["10.0.0.9"], []):
        facts = make_facts(head)
        facts["facts"]["address"].update(resolved=resolved, own=[])
        facts["facts"]["ports"]["address_error"] = "Cannot assign requested address"
        found = judge(make_plan(head), head, facts, ())
        assert [f.id for f in stopping(found)] == ["address"]
        (alone,) = judge(make_plan(head), head, facts, (), only=["ports-free"])
        assert (alone.level, may_join([alone])) == ("skip", False)


def test_ports_that_overlap() -> None:
    head, near = make_node("head", 6380), make_node("linux", 6390)
    found = of_one("ports-disjoint", make_facts(head), head, plan=make_plan(head, near))
    assert found.level == "fail"
    assert "node linux on the same host" in found.summary
    elsewhere = dataclasses.replace(near, host="there")
    plan = make_plan(head, elsewhere)
    assert of_one("ports-disjoint", make_facts(head), head, plan=plan).level == "ok"


def test_ports_that_cannot_be() -> None:
    for first, words in ((6379, "Redis"), (900, "outside"), (65530, "outside")):
        head = make_node("head", first)
        found = of_one("ports-disjoint", make_facts(head), head)
        assert found.level == "fail"
        assert words in found.summary

"""The key of a host: known, unknown, changed. The token of two nodes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge, may_join, stopping, unexplained
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan, verdict
from tests.unit.preflight.test_docker import make_container

NODE = make_node("head", 6380)
TOLD = "beta: its host key is not known to this machine; it shows an ED25519 key, SHA256:abc"


def judged(ssh: str, facts: dict[str, Any], **more: Any) -> list[Finding]:
    plan = make_plan(NODE)
    host = dataclasses.replace(plan.hosts["here"], ssh=ssh)
    return judge(dataclasses.replace(plan, hosts={"here": host}), NODE, facts, (), **more)


def untrusted(*, changed: bool) -> dict[str, Any]:
    """Facts of a node whose host is not asked anything, for its key."""
    seen = make_facts(NODE)
    key = {"error": TOLD, "changed": changed, "remedy": "`ssh beta true` trusts it"}
    unknown = dict.fromkeys(seen["facts"], TOLD)
    return {**seen, "facts": {"host_key": key}, "unknown": unknown}


def test_this_machine_has_no_key_to_show() -> None:
    (found,) = judged("", make_facts(NODE), only=["ssh-host-key"])
    assert (found.level, found.summary) == ("ok", "it is this machine")


def test_a_known_key() -> None:
    facts = make_facts(NODE)
    facts["facts"]["host_key"] = {"error": ""}
    (found,) = judged("beta", facts, only=["ssh-host-key"])
    assert found.level == "ok"
    del facts["facts"]["host_key"]
    (found,) = judged("beta", facts, only=["ssh-host-key"])
    assert found.level == "skip"


@pytest.mark.parametrize(
    ("changed", "summary"),
    [(False, "the host key is not known"), (True, "the host key is not the known one")],
)
def test_a_key_that_is_not_trusted_is_told_once(changed: bool, summary: str) -> None:
    found = judged("beta", untrusted(changed=changed))
    assert not may_join(found)
    (told,) = stopping(found)
    assert (told.id, told.level, told.summary) == ("ssh-host-key", "fail", summary)
    assert (told.evidence, told.hint) == (TOLD, "`ssh beta true` trusts it")
    assert [f.id for f in unexplained(found) if f.level != "ok"] == ["ssh-host-key"]


@pytest.mark.parametrize(
    ("place", "level"),
    [
        ({}, "ok"),
        ({"own": ["192.168.1.5"], "default": "192.168.1.5"}, "ok"),
        ({"own": ["100.64.0.1"], "outgoing": ["fe80::1%eth0"]}, "ok"),
        ({"own": ["10.0.0.5"], "default": "8.8.8.8"}, "warn"),
        ({"own": ["2a00::5"]}, "warn"),
    ],
)
def test_a_host_with_an_address_of_the_internet(place: dict[str, Any], level: str) -> None:
    facts = make_facts(NODE)
    facts["facts"]["address"] |= place
    assert verdict("exposure", facts, NODE).level == level


def test_a_container_is_exposed_where_its_ports_are_published() -> None:
    node = make_container()
    facts = make_facts(NODE)
    facts["facts"]["address"]["default"] = "8.8.8.8"
    assert verdict("exposure", facts, node).level == "ok"
    facts["facts"]["address"]["own"] = ["8.8.8.8"]
    found = verdict("exposure", facts, node)
    assert (found.level, found.evidence) == ("warn", "8.8.8.8: the node's ports are open there too")


@pytest.mark.parametrize(
    ("theirs", "level"), [("9" * 64, "ok"), ("0" * 64, "fail"), ("", "ok"), (None, "ok")]
)
def test_the_token_is_the_heads(theirs: str | None, level: str) -> None:
    worker = make_node("linux", 6480)
    peers = {} if theirs is None else {"head": make_facts(NODE)}
    for facts in peers.values():
        facts["facts"]["token"]["sha256"] = theirs
    plan = make_plan(NODE, worker)
    (found,) = judge(plan, worker, make_facts(worker), (), only=["token"], together=peers)
    assert found.level == level
    assert (found.evidence == "digest 999999999999, 000000000000 on head") is (level == "fail")

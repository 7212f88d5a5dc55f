"""The key of a host: known, unknown, changed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge, may_join, stopping, unexplained
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan

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

"""Facts of several nodes that are looked at in one go, from what the probe answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from saf_env.plan.model import ClusterPlan
from saf_env.provision.facts import gather_facts
from saf_env.transports.base import CommandResult, Transport


@dataclass
class Host:
    """A host on which the probe gives ``answer``; without one no Python runs there."""

    answer: dict[str, Any]
    asked: list[dict[str, Any]] = field(default_factory=list)
    host: str = "here"

    def run(self, argv: Sequence[str], *, stdin: str, **_: object) -> CommandResult:
        self.asked.append(json.loads(stdin.splitlines()[1]))
        code = 0 if self.answer else 127
        return CommandResult(tuple(argv), self.host, code, json.dumps(self.answer), "no", 0.1)


def look(plan: ClusterPlan, host: Host, **more: Any) -> dict[str, Any]:
    twin = replace(plan.head, name="twin", ports=plan.node("linux").ports)
    return gather_facts(plan.head, plan, cast(Transport, host), {}, beside=[twin], **more)


def test_a_node_beside_another_has_its_own_facts_and_the_shared_ones(plan: ClusterPlan) -> None:
    ports = {"held": [7]}
    host = Host(
        {
            "facts": {"packages": [["ray", "2"]], "ports": {"held": []}, "platform": {"time": 0.0}},
            "unknown": {"uv": "no uv", "ray": "?"},
            "beside": {"twin": {"facts": {"ports": ports, "ray": {}}, "unknown": {"disk": "?"}}},
        }
    )
    seen = look(plan, host)
    twin = seen.pop("beside")["twin"]
    assert seen["facts"]["ports"] == {"held": []}
    assert twin["facts"]["ports"] == ports
    assert twin["facts"]["packages"] == [["ray", "2"]]
    assert twin["facts"]["clock"] == seen["facts"]["clock"]
    assert twin["unknown"] == {"uv": "no uv", "disk": "?"}
    (asked,) = host.asked
    assert asked["beside"]["twin"]["node"] == "twin"
    assert asked["beside"]["twin"]["ports"] != asked["ports"]


def test_where_nothing_runs_nothing_is_known_of_either(plan: ClusterPlan) -> None:
    seen = look(plan, Host({}), python=plan.head.environment.python)
    twin = seen.pop("beside")["twin"]
    assert twin == seen
    assert twin["unknown"] is not seen["unknown"]

"""The state of a node: what is seen of it, and what that is called."""

from __future__ import annotations

from typing import Any

import pytest

from saf_env.cluster.gcs import RayNode
from saf_env.cluster.status import (
    as_attested,
    as_json,
    proven,
    seen_by_ray,
    state_of,
    strangers,
)
from saf_env.plan.model import ClusterPlan
from saf_env.runtimes.base import Found, Started

LEADER = Started("linux", "r", 1, "1")
WHOLE = Found("linux", "r", {"leader": 1, "raylet": 1, "other": 3}, LEADER)
BEGINNING = Found("linux", "r", {"leader": 1}, LEADER)
HEADLESS = Found("linux", "r", {"raylet": 1}, None)


def ray(name: str = "linux", *, alive: bool = True, told: Any = None) -> RayNode:
    return RayNode("id", name, "r", alive, "127.0.0.2", 6484, {}, told)


@pytest.mark.parametrize(
    ("expected", "seen"),
    [
        ("absent", {}),
        ("dead", {"recorded": True}),
        ("dead", {"recorded": True, "attested": True}),
        ("starting", {"found": BEGINNING}),
        ("dead", {"found": BEGINNING, "recorded": True, "attested": True}),
        ("dead", {"found": HEADLESS, "recorded": True}),
        ("starting", {"found": WHOLE, "head_answers": True}),
        ("starting", {"found": WHOLE, "ray": ray(), "head_answers": True, "as_planned": True}),
        ("dead", {"found": WHOLE, "attested": True}),
        ("dead", {"found": WHOLE, "attested": True, "ray": ray(alive=False), "head_answers": True}),
        ("drifted", {"found": WHOLE, "attested": True, "ray": ray(), "head_answers": True}),
        ("drifted", {"found": WHOLE, "attested": True, "mute": True}),
        ("ready", {"found": WHOLE, "attested": True, "mute": True, "as_planned": True}),
        ("starting", {"found": WHOLE, "mute": True, "as_planned": True}),
        ("dead", {"found": HEADLESS, "attested": True, "mute": True}),
        ("drifted", {"found": WHOLE, "ray": ray(), "head_answers": True}),
        (
            "ready",
            {
                "found": WHOLE,
                "attested": True,
                "ray": ray(),
                "head_answers": True,
                "as_planned": True,
            },
        ),
    ],
)
def test_states(plan: ClusterPlan, expected: str, seen: dict[str, object]) -> None:
    nothing = {
        "recorded": False,
        "attested": False,
        "found": None,
        "ray": None,
        "head_answers": False,
        "as_planned": False,
    }

    assert state_of(plan.node("linux"), **{**nothing, **seen}) == expected  # type: ignore[arg-type]


def test_a_node_that_joined_around_us_is_a_stranger(plan: ClusterPlan) -> None:
    nodes = [ray("head"), ray(""), ray("", alive=False)]

    assert strangers(plan, nodes) == [ray("")]


def test_json_has_the_fields_of_the_contract(plan: ClusterPlan) -> None:
    value = as_json(plan, [as_attested(node) for node in plan.nodes])

    assert value["schema"] == 1
    assert value["nodes"][0] == {
        "name": "head",
        "host": "here",
        "kind": "native",
        "role": "head",
        "state": "ready",
        "platform": "linux-x86_64",
        "python": "3.12.1",
        "ray": "2.60.0",
        "fingerprint": plan.head.fingerprint,
        "planned_fingerprint": plan.head.fingerprint,
        "advertise": "127.0.0.2",
        "resources": {"mlx": 1.0, "saf_node_head": 1.0, "tape": 2},
    }


def test_of_hosts_that_are_not_asked_ray_tells(plan: ClusterPlan) -> None:
    known = [ray(), ray("head"), ray("linux", alive=False), ray("")]
    assert seen_by_ray(plan, [], known) == {}
    found = seen_by_ray(plan, ["here"], known)
    assert set(found) == {"linux", "head"}
    assert found["head"].whole("head")
    assert found["linux"].leader is None


def test_what_a_node_said_when_it_was_attested_is_judged_by_this_plan(plan: ClusterPlan) -> None:
    node = plan.node("linux")
    interpreter = node.environment.interpreter
    said: dict[str, Any] = {
        "facts": {
            "interpreter": {
                "version": interpreter.version,
                "build": interpreter.build,
                "digest": interpreter.sha256,
            },
            "environment": {},
            "packages": list(node.environment.packages.items()),
        }
    }
    assert proven(node, ray(told=said))
    assert not proven(node, ray())
    assert not proven(node, None)
    assert not proven(node, ray(told={"error": "no answer"}))
    said["facts"]["packages"].append(["stranger", "1.0"])
    assert not proven(node, ray(told=said))

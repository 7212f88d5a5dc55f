"""What is on the machine beside the node: modules, variables, nodes that were planned once."""

from __future__ import annotations

import pytest

from tests.unit.preflight.test_checks import PROCESS, changed, make_facts, make_node, verdict
from tests.unit.preflight.test_docker import make_container

NODE = make_node("head", 6380)


def test_a_module_in_the_folder_that_a_node_is_started_in() -> None:
    facts = changed(make_facts(NODE), "temp_dir.modules", ["/t/random.py"])
    found = verdict("temp-dir", facts, NODE)
    assert (found.level, found.evidence) == ("fail", "/t/random.py")
    assert verdict("temp-dir", facts, make_container()).level == "ok"  # it has a folder of its own


@pytest.mark.parametrize(("node", "level"), [("head", "ok"), ("gone", "warn")])
def test_a_node_that_has_left_the_plan(node: str, level: str) -> None:
    mark = f"saf-0123456789/{node}/n"
    found = verdict(
        "stale-ray", changed(make_facts(NODE), "ray.kin", [{**PROCESS, "mark": mark}]), NODE
    )
    assert found.level == level
    assert (found.evidence == "raylet of gone (pid 7)") is (level == "warn")


@pytest.mark.parametrize(
    ("name", "value", "level", "evidence"),
    [
        ("RAY_AUTH_TOKEN_PATH", "/x", "fail", "RAY_AUTH_TOKEN_PATH=/x, planned "),
        ("grpc_proxy", None, "warn", "no_proxy does not name 127.0.0.2"),
    ],
)
def test_a_variable(name: str, value: str | None, level: str, evidence: str) -> None:
    facts = changed(make_facts(NODE), f"user_variables.{name}", value)
    found = verdict("environment-variables", facts, NODE)
    assert found.level == level
    assert found.evidence.startswith(evidence)

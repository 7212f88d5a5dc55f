"""What a worker says of itself against the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saf_env.cluster.attest import REQUEST, differences, probe_source
from saf_env.cluster.gcs import attested, ray_nodes
from saf_env.errors import BringUpError
from saf_env.plan.model import ClusterPlan


def answer(plan: ClusterPlan, **changed: Any) -> dict[str, Any]:
    """What the worker ``linux`` says when it is what was planned."""
    environment = plan.node("linux").environment
    interpreter = {
        "version": environment.interpreter.version,
        "build": environment.interpreter.build,
        "digest": environment.interpreter.sha256,
        **changed.pop("interpreter", {}),
    }
    facts = {
        "interpreter": interpreter,
        "environment": {"path": str(environment.path), "marker": None},
        "packages": list(map(list, {**environment.packages, **changed}.items())),
    }
    return {"facts": facts, "unknown": {}}


def test_what_was_planned_has_no_differences(plan: ClusterPlan) -> None:
    assert differences(plan.node("linux"), answer(plan)) == []


def test_every_difference_is_named(plan: ClusterPlan) -> None:
    said = answer(plan, ray="2.59.0", extra="1.0", interpreter={"version": "3.12.2"})

    assert differences(plan.node("linux"), said) == [
        "Python is 3.12.2, planned 3.12.1",
        "extra is 1.0, planned not to be there",
        "ray is 2.59.0, planned 2.60.0",
    ]


def test_a_missing_package_is_named(plan: ClusterPlan) -> None:
    said = answer(plan)
    said["facts"]["packages"] = []

    assert differences(plan.node("linux"), said) == ["ray is missing, planned 2.60.0"]


def test_another_build_of_the_same_version_is_named(plan: ClusterPlan) -> None:
    said = answer(plan, interpreter={"digest": "0" * 64, "build": "3.12.1 (other)"})

    assert differences(plan.node("linux"), said) == [
        "Python is the build 3.12.1 (other), planned 3.12.1 (main)"
    ]


def test_silence_is_a_difference(plan: ClusterPlan) -> None:
    node = plan.node("linux")

    assert differences(node, {"error": "no answer"}) == ["its worker does not answer: no answer"]
    said = {"facts": {}, "unknown": {"packages": "OSError: gone"}}
    assert "packages unknown: OSError: gone" in differences(node, said)


def test_a_plan_with_another_fingerprint_is_never_met(plan: ClusterPlan) -> None:
    node = replace(plan.node("linux"), fingerprint="0" * 64)

    assert differences(node, answer(plan)) == ["its fingerprint is not the planned one"]


def test_the_probe_travels_as_text() -> None:
    text = probe_source()

    compile(text, "probe.py", "exec")
    assert all(f'"{fact}": {fact},' in text for fact in REQUEST["only"])


def test_the_answer_is_the_last_line() -> None:
    node = {
        "id": "ab",
        "name": "head",
        "run": "r",
        "alive": True,
        "address": "127.0.0.2",
        "port": 6384,
        "resources": {},
    }
    text = 'Ray says something\n{"nodes": [%s], "facts": {"head": {}}}'
    import json

    nodes, facts = attested(text % json.dumps(node))

    assert nodes == ray_nodes({"nodes": [node]})
    assert facts == {"head": {}}


@pytest.mark.parametrize("text", ["", "Ray says something\n", '{"error": "not alive: linux"}'])
def test_no_answer_is_an_error(text: str) -> None:
    with pytest.raises(BringUpError, match="cannot be attested"):
        attested(text)

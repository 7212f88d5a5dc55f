"""Attestation: a started node is asked, from inside a Ray worker on it, who it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saf_env.plan.fingerprint import actual_fingerprint
from saf_env.plan.model import NodePlan

REQUEST = {"only": ["interpreter", "environment", "packages", "platform"]}
"""What the probe is asked on every node."""


def probe_source() -> str:
    """The text of the probe: workers cannot import saf-env, and must not need to."""
    return (Path(__file__).parent.parent / "probe.py").read_text(encoding="utf-8")


def differences(node: NodePlan, answer: Mapping[str, Any]) -> list[str]:
    """What a worker on ``node`` says that the plan does not; empty when they agree.

    Args:
        node: the plan.
        answer: what the probe gave in a Ray worker, or ``{"error": reason}``.
    """
    if "error" in answer:
        return [f"its worker does not answer: {answer['error']}"]
    facts = answer.get("facts", {})
    if actual_fingerprint(facts) == node.fingerprint:
        return []
    unknown = [f"{fact} unknown: {why}" for fact, why in answer.get("unknown", {}).items()]
    found = [*unknown, *_interpreter(node, facts), *_packages(node, facts)]
    return found or ["its fingerprint is not the planned one"]


def _interpreter(node: NodePlan, facts: Mapping[str, Any]) -> list[str]:
    seen, wanted = facts.get("interpreter", {}), node.environment.interpreter
    lines = []
    if seen.get("version") != wanted.version:
        lines.append(f"Python is {seen.get('version')}, planned {wanted.version}")
    elif wanted.source == "system" and seen.get("digest") != wanted.sha256:
        lines.append(f"Python is the build {seen.get('build')}, planned {wanted.build}")
    return lines


def _packages(node: NodePlan, facts: Mapping[str, Any]) -> list[str]:
    seen, wanted = dict(facts.get("packages", ())), node.environment.packages
    return [
        f"{name} is {seen.get(name, 'missing')}, planned {wanted.get(name, 'not to be there')}"
        for name in sorted({*seen, *wanted})
        if seen.get(name) != wanted.get(name)
    ]

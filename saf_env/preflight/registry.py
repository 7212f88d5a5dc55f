"""All checks, and the judging of a node by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight import interpreter, lock, network, packages, security, system
from saf_env.preflight.base import Case, Check, Finding, UnknownFactError, Verdict

CHECKS: tuple[Check, ...] = (
    *interpreter.CHECKS,
    *packages.CHECKS,
    *lock.CHECKS,
    *system.CHECKS,
    *network.CHECKS,
    *security.CHECKS,
)
IDS = tuple(check.id for check in CHECKS)

ENVIRONMENT = frozenset(
    {
        "packages-extra",
        "packages-intact",
        "packages-locked",
        "python-build",
        "python-isolated",
        "python-version",
    }
)
"""Checks of a node's environment: their remedy is the environment made anew."""


def judge(
    plan: ClusterPlan,
    node: NodePlan,
    facts: Mapping[str, Any],
    lock_reasons: Sequence[str],
    *,
    ignore: Collection[str] = (),
    only: Collection[str] = (),
    running: bool = False,
) -> list[Finding]:
    """Run all checks on one node; the verdict comes after all of them.

    Args:
        plan: the whole plan.
        node: the node that is judged.
        facts: see :func:`saf_env.provision.facts.gather_facts`.
        lock_reasons: why the lock is stale; empty when it is fresh.
        ignore: ids of checks whose ``fail`` becomes a ``warn`` that says so.
        only: ids of the checks to run; empty means all.
        running: whether this node of ours is up.

    Returns:
        One finding for each check, in the order of :data:`CHECKS`.
    """
    case = Case(plan, node, facts, lock_reasons, running)
    return [
        _finding(check, case, ignored=check.id in ignore)
        for check in CHECKS
        if not only or check.id in only
    ]


def _finding(check: Check, case: Case, *, ignored: bool) -> Finding:
    try:
        verdict = check.judge(case)
    except UnknownFactError as error:
        verdict = Verdict("skip", "could not be judged", str(error))
    if ignored and verdict.level == "fail":
        verdict = replace(verdict, level="warn", summary=f"{verdict.summary} (ignored as asked)")
    return Finding(check.id, case.node.name, **vars(verdict))

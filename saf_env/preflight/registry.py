"""All checks, and the judging of a node by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight import (
    alike,
    capacity,
    docker,
    interpreter,
    lock,
    mac,
    network,
    packages,
    peers,
    security,
    system,
    tailnet,
    versions,
    ways,
)
from saf_env.preflight.base import Case, Check, Finding, UnknownFactError, Verdict

CHECKS: tuple[Check, ...] = (
    *interpreter.CHECKS,
    *versions.CHECKS,
    *packages.CHECKS,
    *lock.CHECKS,
    *alike.CHECKS,
    *system.CHECKS,
    *capacity.CHECKS,
    *mac.CHECKS,
    *network.CHECKS,
    *peers.CHECKS,
    *ways.CHECKS,
    *tailnet.CHECKS,
    *security.CHECKS,
    *docker.CHECKS,
)
IDS = tuple(check.id for check in CHECKS)
_REQUIRED = frozenset(check.id for check in CHECKS if check.level == "fail")

ENVIRONMENT = frozenset(
    {
        "packages-extra",
        "packages-intact",
        "packages-locked",
        "python-build",
        "python-intact",
        "python-isolated",
        "python-version",
    }
)
"""Checks of a node's environment: their remedy is the environment made anew."""

OF_ENGINE = frozenset({"disk", "docker-compose", "docker-engine", "docker-rights", "docker-vm"})
"""Checks of what builds and runs containers: where one fails, no image need be built."""

FIXABLE = ENVIRONMENT | {"advertised-name", "image-present", "token"}
"""Checks whose failure ``saf-env check --fix`` may be able to mend."""

AREAS: Mapping[str, tuple[str, ...]] = {
    "interpreter": (
        "python-version",
        "python-build",
        "python-arch",
        "python-intact",
        "python-isolated",
    ),
    "packages": (
        "packages-locked",
        "packages-extra",
        "packages-intact",
        "packages-agree",
        "ray-build",
        "uv-version",
    ),
    "lock": ("lock-fresh", "lock-same"),
    "system": (
        "platform",
        "os-version",
        "cpu",
        "worker-ports",
        "memory",
        "swap",
        "disk",
        "shm",
        "nofile",
        "temp-dir",
        "clock",
        "hostname",
        "stale-ray",
        "environment-variables",
    ),
    "macOS": ("sleep", "firewall", "metal", "filevault-boot"),
    "network": (
        "address",
        "advertised-name",
        "ports-free",
        "ports-disjoint",
        "head-reachable",
        "peer-matrix",
        "latency",
        "bandwidth",
        "mtu",
        "tailnet",
    ),
    "Docker": (
        "docker-engine",
        "docker-rights",
        "docker-compose",
        "docker-vm",
        "image-present",
        "container-user",
    ),
    "security": ("token", "ssh-host-key", "exposure"),
}
"""What checks are about, for people: their ids by area, in the order in which both are shown."""


def judge(
    plan: ClusterPlan,
    node: NodePlan,
    facts: Mapping[str, Any],
    lock_reasons: Sequence[str],
    *,
    ignore: Collection[str] = (),
    only: Collection[str] = (),
    running: bool = False,
    together: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Run all checks on one node; the verdict comes after all of them.

    Args:
        plan: the whole plan.
        node: the node that is judged.
        facts: see :func:`saf_env.provision.facts.gather_facts`.
        lock_reasons: why the lock is stale; empty when it is fresh.
        ignore: ids of checks that stop no join: what would becomes a ``warn`` that says so.
        only: ids of the checks to run; empty means all.
        running: whether this node of ours is up.
        together: facts of all nodes that are looked at, by name.

    Returns:
        One finding for each check that applies to the node, in the order of :data:`CHECKS`.
    """
    case = Case(plan, node, facts, lock_reasons, running, together or {})
    return [
        _finding(check, case, ignored=check.id in ignore)
        for check in CHECKS
        if check.applies(node) and (not only or check.id in only)
    ]


def _finding(check: Check, case: Case, *, ignored: bool) -> Finding:
    try:
        verdict = check.judge(case)
    except UnknownFactError as error:
        verdict = Verdict("skip", "could not be judged", str(error))
    if ignored and (verdict.level == "fail" or _is_open(check.id, verdict)):
        verdict = replace(verdict, level="warn", summary=f"{verdict.summary} (ignored as asked)")
    return Finding(check.id, case.node.name, **vars(verdict))


def stopping(found: Sequence[Finding]) -> list[Finding]:
    """The findings that stop a join: failures, and requirements that could not be judged.

    What :func:`unexplained` leaves out is left out.
    """
    return [f for f in unexplained(found) if f.level == "fail" or _is_open(f.id, f)]


def unexplained(found: Sequence[Finding]) -> list[Finding]:
    """``found`` without what could not be judged for the very reason that a failure tells.

    Where the environment is not there, or the host cannot be asked, one failure of the node says
    so; the same reason would be told again by every check that needs to look.
    """
    failed = [finding for finding in found if finding.level == "fail"]

    def is_told(one: Finding) -> bool:
        reason = one.evidence if one.level == "skip" else ""
        return bool(reason) and any(f.node == one.node and reason in f.evidence for f in failed)

    return [f for f in found if not is_told(f)]


def may_join(found: Sequence[Finding]) -> bool:
    """Whether nothing in ``found`` stops a join."""
    return not stopping(found)


def explained(check: Check) -> list[str]:
    """What there is to know of a check, in paragraphs: why, by what evidence, its levels, its cure.

    The docs and ``saf-env check --explain`` both say this.
    """
    what = "a node" if check.scope == "node" else "a node's place among the others"
    levels = f"It is about {what}; "
    if check.level == "fail":
        levels += (
            "at worst it is a `fail`, which stops a join, as does a `skip` (it could not be "
            f"judged). `--ignore {check.id}` lets both through."
        )
    else:
        levels += "at worst it is a `warn`, which stops nobody."
    return [check.explain, levels, f"Remedy: {check.remedy}"]


def to_json(found: Sequence[Finding]) -> dict[str, Any]:
    """What ``saf-env check --json`` prints; its schema is ``schemas/check.json``."""
    return {"schema": 1, "ok": may_join(found), "findings": [asdict(f) for f in found]}


def _is_open(check: str, verdict: Verdict | Finding) -> bool:
    """Whether a requirement could not be judged: it may be broken, so it counts as that."""
    return verdict.level == "skip" and check in _REQUIRED

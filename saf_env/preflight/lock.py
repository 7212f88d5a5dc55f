"""Checks of the lock itself."""

from __future__ import annotations

from saf_env.preflight.base import Case, Check, Verdict, fail, listed, ok


def lock_fresh(case: Case) -> Verdict:
    """The cluster file says what it said when it was locked."""
    if case.lock_reasons:
        return fail(
            "the lock is stale",
            listed(case.lock_reasons),
            "run `saf-env lock`, look at what changes, then `saf-env up`",
        )
    return ok("the lock is that of the cluster file", case.cluster.lock_sha256[:12])


CHECKS = (
    Check(
        "lock-fresh",
        "cluster",
        "fail",
        "the lock matches the cluster file",
        lock_fresh,
        "What was locked (packages, Python, nodes' groups and platforms) is compared with the "
        "cluster file as it is now.",
        "`saf-env lock`, look at what changes, then `saf-env up`.",
    ),
)

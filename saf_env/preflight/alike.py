"""Checks that nodes have the same software: what crosses the wire, Ray's build, the lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Case, Check, Verdict, fail, listed, ok, warn

ON_THE_WIRE = ("ray", "numpy", "cloudpickle", "mlx", "pyarrow", "protobuf")
"""Packages whose objects or messages go from node to node."""


def packages_agree(case: Case) -> Verdict:
    """What crosses the wire has the version that the head has, or the first node that has it."""
    own = dict(case.fact("packages"))
    shared, wrong, hints = 0, [], []
    for name in ON_THE_WIRE:
        other = _first_with(case, name)
        if name not in own or other is None or other.name == case.node.name:
            continue
        shared += 1
        version = _versions(case, other)[name]
        if own[name] != version:
            wrong.append(f"{name} {own[name]}, {version} on {other.name}")
            hints.append(_mend(case, other, name))
    if wrong:
        hint = "; ".join(dict.fromkeys(hints))
        return fail("packages differ from those of other nodes", listed(wrong, 6), hint)
    return ok(f"{shared} packages as on other nodes" if shared else "nothing to compare")


def _versions(case: Case, node: NodePlan) -> Mapping[str, str]:
    """Versions of the packages of a node: those it has, or, where nobody looked, the planned."""
    facts = case.facts_of(node)
    seen = facts["facts"].get("packages") if facts else None
    return node.environment.packages if seen is None else dict(seen)


def _first_with(case: Case, package: str) -> NodePlan | None:
    """The node that others are compared with: the head, if it has the package."""
    return next((n for n in case.cluster.nodes if package in _versions(case, n)), None)


def _mend(case: Case, other: NodePlan, package: str) -> str:
    """What brings one of two nodes to the lock; both as locked, the lock to one version."""
    for node in (case.node, other):
        if node.environment.packages.get(package) != _versions(case, node)[package]:
            return f"run `saf-env check --fix {node.name}`, which makes its environment anew"
    return (
        f"the lock has two versions of {package}: give it one in the cluster file, then run "
        "`saf-env lock`"
    )


def ray_build(case: Case) -> Verdict:
    """Ray was built from the commit that the head's was, or that of the first node known."""
    commits = {n.name: _commit(case, n) for n in case.cluster.nodes}
    own = str(case.fact("ray_build")["commit"])
    if not own:
        return warn(
            "Ray does not say what it was built from",
            "there is no commit in ray/_version.py",
            "lock a released Ray, so that nodes can be compared",
        )
    name, commit = next((name, commit) for name, commit in commits.items() if commit)
    if commit == own:
        return ok(f"Ray of commit {own[:12]}")
    return fail(
        f"Ray was built from another commit than that of {name}",
        f"{own[:12]}, {commit[:12]} on {name}",
        "run `saf-env check --deep --fix`, which makes anew what is not as locked; where both "
        "are, lock a Ray that is one release on all platforms",
    )


def _commit(case: Case, node: NodePlan) -> str:
    facts = case.facts_of(node)
    return str(facts["facts"].get("ray_build", {}).get("commit", "")) if facts else ""


def lock_same(case: Case) -> Verdict:
    """What is installed on the node's host, and the head's, was made from this checkout's lock.

    The name of an environment has a digest of all that the lock says of it, and its marker the
    digest of its requirements. So a host that only has environments of another lock was provisioned
    from that one, by an older checkout or another one. Where there is none at all, nothing is from
    another lock: that it is not installed, is for other checks. An image is known by a digest of
    all that decides what is in it, so ``image-present`` tells. A head that runs is compared by its
    plan's digest when something joins it.
    """
    if case.node.kind == "native":  # without a look at it nothing can be said
        case.fact("environments")
    for node in (case.node, case.cluster.head):
        facts = case.facts_of(node)
        other = _other_lock(node, facts["facts"]) if facts else ""
        if other:
            what = "the head" if node.name != case.node.name else "it"
            return fail(
                f"{what} was provisioned from another lock",
                f"{other}; this checkout's is {case.cluster.lock_sha256[:12]}",
                "run `saf-env up`, which installs what this checkout's lock says; if the other is "
                "the right one, bring its lockfiles here instead",
            )
    return ok("installed from this checkout's lock", case.cluster.lock_sha256[:12])


def _other_lock(node: NodePlan, facts: Mapping[str, Any]) -> str:
    """What of another lock a node has, and has not of this one; empty when that is nothing."""
    plan = node.environment
    if node.kind == "container":
        return ""
    there = dict(facts.get("environments", ()))
    kin = plan.key.rpartition("-")[0] + "-"
    others = [name for name in there if name.startswith(kin)]
    if plan.key not in there and others:
        return f"planned {plan.key}, found {listed(others, 2)}"
    found = there.get(plan.key, plan.lock.sha256)
    if found == plan.lock.sha256:
        return ""
    return f"{plan.key} was made from requirements {found[:12]}, not {plan.lock.sha256[:12]}"


CHECKS = (
    Check(
        "packages-agree",
        "cluster",
        "fail",
        "the versions that other nodes have",
        packages_agree,
        "Objects and messages of ray, numpy, cloudpickle, mlx, pyarrow and protobuf go from node "
        "to node. Each must have the version of the head, or of the first node that has it: the "
        "one found there, or, of a node that is not looked at, the planned one.",
        "`saf-env check --fix` on the node that is not as locked. Where both are, give the "
        "package one version in the cluster file and run `saf-env lock`.",
    ),
    Check(
        "ray-build",
        "cluster",
        "fail",
        "the build of Ray that other nodes have",
        ray_build,
        "One version of Ray may have been built more than once. The commit in ray/_version.py must "
        "be that of the head, or of the first node that is looked at.",
        "`saf-env check --deep --fix` makes anew what is not as locked. Where both are, lock a "
        "Ray that is one release on all platforms.",
    ),
    Check(
        "lock-same",
        "cluster",
        "fail",
        "environments made from this checkout's lock",
        lock_same,
        "The environments on the node's host and on the head's say which lock they were made from. "
        "A host that has those of another lock only was provisioned by another checkout, or before "
        "the last `saf-env lock`.",
        "`saf-env up` installs what this checkout's lock says. If the other lock is the right "
        "one, bring its lockfiles here.",
    ),
)

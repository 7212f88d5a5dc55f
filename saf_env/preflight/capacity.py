"""Checks of what a host has for its nodes: CPUs, and memory that need not be swapped out."""

from __future__ import annotations

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Case, Check, Verdict, fail, gib, in_container, listed, ok, warn

SWAP_WARNS = 0.1
"""Share of the memory's size that may be swapped out: what nobody uses any more is."""


def cpu(case: Case) -> Verdict:
    """The CPUs that the plan promises to Ray are there, for this node and for all on its host."""
    node, seen = case.node, case.fact("platform")["cpus"]
    on_host = [other for other in case.cluster.on(node.host) if other.cpus]
    together = sum(other.cpus or 0 for other in on_host)
    evidence, hint = f"the host has {seen}", "lower cpus of the node in the cluster file"
    if (node.cpus or 0) > seen:
        return fail(f"{node.cpus} CPUs are planned for the node", evidence, hint)
    if together > seen:
        names = listed([other.name for other in on_host])
        return warn(f"{together} CPUs are planned for nodes {names} together", evidence, hint)
    return ok(f"{node.cpus} CPUs planned" if node.cpus else "Ray takes all CPUs", evidence)


def swap(case: Case) -> Verdict:
    """The host does not make up for missing memory with its disk."""
    seen, memory = case.fact("swap"), case.fact("memory")["total"]
    evidence = f"{gib(seen['used'])} swapped out, {gib(memory)} of memory"
    if seen["used"] > SWAP_WARNS * memory:
        return warn(
            "the host is short of memory and swaps",
            evidence,
            "end what uses its memory, or lower memory and object_store_memory of its nodes: work "
            "on what is swapped out is as slow as the disk",
        )
    return ok("little or nothing is swapped out" if seen["total"] else "no swap", evidence)


def _native(node: NodePlan) -> bool:
    return not in_container(node)  # of containers docker-vm tells


CHECKS = (
    Check(
        "cpu",
        "node",
        "fail",
        "the CPUs that Ray is promised",
        cpu,
        "Ray gives out as many CPUs as the cluster file says, whatever the host has. A native node "
        "with more than the host is a failure, nodes with more together are a warning. Of a "
        "container `docker-vm` tells. Where the cluster file says nothing, Ray takes all.",
        "Lower cpus of the node in the cluster file.",
        _native,
    ),
    Check(
        "swap",
        "node",
        "warn",
        "a host that does not swap",
        swap,
        "Ray ends tasks before memory runs out, but it does not count what is swapped out: a host "
        "that swaps only becomes slow. That there is swap space is in order; more in use than a "
        "tenth of the memory is a warning.",
        "End what uses the host's memory, or lower memory and object_store_memory of its nodes.",
    ),
)

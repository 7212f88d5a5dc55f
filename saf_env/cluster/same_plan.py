"""Whether what runs was started from the plan in force. Pure, but for the state that is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from saf_env.cluster import state as states
from saf_env.errors import BringUpError
from saf_env.plan.command import ray_start
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.runtimes.base import Found


def plan_digest(node: NodePlan, address: str) -> str:
    """A digest of all that decides how a node runs; part of its mark, so that changes are seen.

    It is the same from every host of the cluster: where environments lie is no part of it.
    """
    value = [ray_start(node, address), sorted(node.variables.items()), node.fingerprint]
    if node.image is not None:  # a limit of memory is Compose's to keep, and Ray is not told
        value += [node.image.key, node.network, node.memory]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def refuse_moved(plan: ClusterPlan) -> None:
    """Do nothing unless the cluster runs where the plan does not look for it any more.

    Raises:
        BringUpError: it was started under another id, see :func:`saf_env.plan.build.folder_of`.
    """
    started = states.read(plan.home, plan.name)
    if started.nodes and started.folder != plan.folder.name:
        raise BringUpError(
            f"cluster {plan.name} was started with another address or port of its head, "
            "or for another number of hosts",
            hint="run `saf-env down`, then `saf-env up`",
        )


def refuse_changed(plan: ClusterPlan, found: Mapping[str, Found]) -> None:
    """Do nothing unless one of ``found`` was started from another plan.

    Raises:
        BringUpError: one was.
    """
    planned = {node.name: plan_digest(node, plan.address) for node in plan.nodes}
    changed = [
        name
        for name, f in sorted(found.items())
        if f.whole("worker") and f.run.split(".")[0] != planned.get(name)
    ]
    if changed:
        raise BringUpError(
            f"running from an earlier plan: {', '.join(changed)}. The cluster file or its lock "
            "has changed since they were started",
            hint="run `saf-env down`, then `saf-env up`; work that runs on them would be lost, "
            "so this is never done by itself",
        )


def refuse_headless(plan: ClusterPlan, found: Mapping[str, Found]) -> None:
    """Do nothing when the head, which is another host's to start, runs from this plan.

    Raises:
        BringUpError: it does not run, or runs from another cluster file or lock.
    """
    head = plan.head
    if head.name not in found:
        raise BringUpError(
            f"no head of cluster {plan.name} answers at {plan.address}",
            hint=f"run `saf-env up` on {plan.controller} first; if the head runs on {head.host}, "
            "`saf-env check` here looks at the way to it",
        )
    if found[head.name].run.split(".")[0] != plan_digest(head, plan.address):
        raise BringUpError(
            f"the head on {head.host} was started from another cluster file or lock than those "
            f"here (lock {plan.lock_sha256[:12]})",
            hint=f"bring the cluster file and lockfiles/{plan.name} to what {plan.controller} has",
        )

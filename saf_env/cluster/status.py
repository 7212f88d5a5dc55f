"""What the nodes of a cluster are doing, planned against actual. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saf_env.cluster.attest import differences
from saf_env.cluster.gcs import RayNode
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.runtimes.base import Found

State = Literal["absent", "starting", "ready", "drifted", "dead"]


@dataclass(frozen=True)
class NodeStatus:
    """One node.

    Attributes:
        node: its plan.
        state: ``absent``: nothing of it runs, nor should; ``starting``: it runs and is not attested
            yet; ``ready``: it runs, attested, and is what the lock says; ``drifted``: it runs, and
            its environment is not what the lock says (any more); ``dead``: it was started, and its
            processes, or its connection to the head, are gone.
        fingerprint: the actual one; empty when its environment could not be looked at.
        ray: version of Ray that is installed; empty as above.
        python: version of CPython; empty as above.
    """

    node: NodePlan
    state: State
    fingerprint: str
    python: str
    ray: str

    def as_json(self) -> dict[str, Any]:
        """One entry of ``nodes`` in ``saf-env status --json``."""
        node = self.node
        return {
            "name": node.name,
            "host": node.host,
            "kind": node.kind,
            "role": node.role,
            "state": self.state,
            "platform": node.platform,
            "python": self.python,
            "ray": self.ray,
            "fingerprint": self.fingerprint,
            "planned_fingerprint": node.fingerprint,
            "advertise": node.advertise,
            "resources": dict(node.resources),
        }


def state_of(
    node: NodePlan,
    *,
    recorded: bool,
    attested: bool,
    found: Found | None,
    ray: RayNode | None,
    head_answers: bool,
    as_planned: bool,
    mute: bool = False,
) -> State:
    """The state of one node.

    Args:
        node: its plan.
        recorded: whether it was started and not stopped.
        attested: whether this very start of it has proven to be what was planned.
        found: its processes, None when there are none.
        ray: what the GCS knows of it, None when nothing.
        head_answers: whether the GCS could be asked.
        as_planned: whether its environment and its start are those of the plan in force.
        mute: whether nobody could ask the GCS, so that what runs is taken to be connected.
    """
    if found is None:
        return "dead" if recorded else "absent"
    if not found.whole(node.role):
        return "starting" if found.leader and not attested else "dead"
    if not mute and (not head_answers or ray is None or not ray.alive):
        return "dead" if attested else "starting"
    if not as_planned:
        return "drifted"
    return "ready" if attested else "starting"


def proven(node: NodePlan, ray: RayNode | None) -> bool:
    """Whether what ``node`` said of itself when it was attested is what is planned."""
    return ray is not None and ray.told is not None and not differences(node, ray.told)


def seen_by_ray(
    plan: ClusterPlan, hosts: Collection[str], known: Sequence[RayNode]
) -> dict[str, Found]:
    """What Ray says of the nodes on ``hosts``, of which nobody else tells us."""
    there = {node.name: node for node in plan.nodes if node.host in hosts}
    roles = {"leader": 1, "raylet": 1, "gcs": 1}
    return {
        ray.name: Found(ray.name, ray.run, roles, None, there[ray.name].host)
        for ray in known
        if ray.alive and ray.name in there
    }


def as_attested(node: NodePlan) -> NodeStatus:
    """The status of a node that has just proven to be what was planned."""
    python, packages = node.environment.interpreter.version, node.environment.packages
    return NodeStatus(node, "ready", node.fingerprint, python, packages.get("ray", ""))


def strangers(plan: ClusterPlan, nodes: Sequence[RayNode]) -> list[RayNode]:
    """Living nodes of the cluster that saf-env did not start: a ``ray start`` around the gate."""
    planned = {node.name for node in plan.nodes}
    return [node for node in nodes if node.alive and node.name not in planned]


def as_json(plan: ClusterPlan, statuses: Sequence[NodeStatus]) -> dict[str, Any]:
    """The value of ``saf-env status --json``."""
    return {
        "schema": 1,
        "cluster": plan.name,
        "address": plan.address,
        "nodes": [status.as_json() for status in statuses],
    }

"""Looks at the cluster as it is now: processes, the GCS and the environments, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from saf_env.cluster import state as states
from saf_env.cluster.gate import gather
from saf_env.cluster.gcs import RayNode
from saf_env.cluster.project import Project
from saf_env.cluster.same_plan import plan_digest
from saf_env.cluster.status import NodeStatus, proven, seen_by_ray, state_of, strangers
from saf_env.errors import BringUpError, HostUnreachableError
from saf_env.plan.build import token_path
from saf_env.plan.fingerprint import actual_fingerprint
from saf_env.preflight.registry import ENVIRONMENT, judge
from saf_env.provision.environments import ready
from saf_env.runtimes.base import Found, by_node


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        nodes: every planned node.
        ray: what the GCS knows of what runs, by node name; empty when it does not answer.
        strangers: living Ray nodes that saf-env did not start.
        leftovers: names of nodes that run, and that the plan has no more.
        lost: hosts that cannot be reached, and why. Of their nodes only Ray knows something.
        answered: whether Ray has answered.
        mute: why it could not be asked, though it may be well: the head's environment has drifted
            so far that it cannot ask. None otherwise.
    """

    nodes: list[NodeStatus]
    ray: dict[str, RayNode]
    strangers: list[RayNode]
    leftovers: list[str]
    lost: dict[str, HostUnreachableError]
    answered: bool
    mute: BringUpError | None = None

    def ready(self, names: Collection[str]) -> bool:
        """Whether the nodes called ``names`` are ready, and none that has left the plan runs.

        Of a host that cannot be reached, Ray may not know yet that it is gone.
        """
        wanted = [status for status in self.nodes if status.node.name in names]
        seen = all(s.state == "ready" and s.node.host not in self.lost for s in wanted)
        return seen and not self.leftovers and self.mute is None


def look(project: Project, known: Sequence[RayNode] | None = None) -> Look:
    """See :class:`Look`. Nothing is changed, and no state file is believed.

    Args:
        project: the cluster.
        known: what the GCS has just said of its nodes; it is asked when not given.

    Raises:
        BringUpError: Ray could not be asked, and it is not for a drift of who asks.
    """
    plan, hosts = project.plan, project.hosts()
    state = states.read(plan.home, plan.name)
    with ThreadPoolExecutor() as pool:
        facts = pool.submit(gather, project, plan.nodes, tolerant=True)
        seen_there, lost = hosts.look(state.recorded)
        found = by_node(seen_there)
        mute = None
        try:
            known = _known(project, found) if known is None else known
        except BringUpError as error:
            mute = error
        seen = facts.result()
    by_run = {node.run: node for node in known or ()}
    elsewhere = {*lost, *hosts.unasked}
    found |= seen_by_ray(plan, elsewhere, known or ())
    ray = {name: by_run[f.run] for name, f in found.items() if f.run in by_run}
    nodes, sound = [], set()
    for node in plan.nodes:
        present, inside = found.get(node.name), seen[node.name]["facts"]
        if node.host in elsewhere:  # nothing newer is known than what it said to Ray
            inside, intact = _told(ray.get(node.name)), True
        else:
            environment = judge(plan, node, seen[node.name], (), only=ENVIRONMENT)
            intact = not any(finding.level in ("fail", "skip") for finding in environment)
        if intact:
            sound.add(node.name)
        fingerprint = actual_fingerprint(inside)
        status = state_of(
            node,
            recorded=node.name in state.nodes,
            attested=present is not None
            and (state.is_attested(node.name, present.run) or proven(node, ray.get(node.name))),
            found=present,
            ray=ray.get(node.name),
            head_answers=known is not None,
            mute=mute is not None,
            # What another host plans to run, and how, is that one's to judge.
            as_planned=node.host in hosts.unasked
            or (
                _of_this_plan(project, present)
                and (node.host in lost or (intact and fingerprint == node.fingerprint))
            ),
        )
        nodes.append(NodeStatus(node, status, fingerprint, *_versions(inside)))
    if mute and project.gcs.via.name in sound:  # it is something else
        raise mute
    planned = {node.name for node in plan.nodes}
    leftovers = sorted(found.keys() - planned)
    others = [r for r in strangers(plan, known or ()) if r.name not in leftovers]
    return Look(nodes, ray, others, leftovers, lost, known is not None, mute)


def _known(project: Project, found: Mapping[str, Found]) -> Sequence[RayNode] | None:
    """What the GCS knows; None when it does not answer, or cannot be asked from here."""
    plan, head = project.plan, project.plan.head
    # Without the token nobody is let in: what runs cannot be asked.
    if not token_path(plan.home, plan.name).exists():
        return None
    if head.host in project.hosts().unasked:
        return project.gcs.nodes() if ready(project.gcs.via.environment) else None
    alive = head.name in found and found[head.name].whole("head")
    return project.gcs.nodes() if alive else None


def _told(ray: RayNode | None) -> dict[str, Any]:
    """The facts that a node told when it was attested."""
    return dict(ray.told.get("facts", {})) if ray is not None and ray.told else {}


def _of_this_plan(project: Project, found: Found | None) -> bool:
    if found is None:
        return False
    node = project.plan.node(found.node)
    return found.run.split(".")[0] == plan_digest(node, project.plan.address)


def _versions(facts: dict[str, Any]) -> tuple[str, str]:
    """Versions of Python and Ray, empty when they could not be seen."""
    python = facts.get("interpreter", {}).get("version", "")
    return python, dict(facts.get("packages", ())).get("ray", "")

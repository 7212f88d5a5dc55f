"""What a node is installed in, which is never replaced while the node runs."""

from __future__ import annotations

from collections.abc import Sequence

from saf_env.cluster.project import Project, found_nodes
from saf_env.errors import PreflightError
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, HostPlan, ImagePlan, NodePlan
from saf_env.runtimes.base import Found


def made_of(node: NodePlan) -> EnvironmentPlan | ImagePlan | None:
    """What a node is installed in; None for a container whose image the lock does not have."""
    return node.image if node.kind == "container" else node.environment


def refuse_in_use(
    project: Project,
    what: EnvironmentPlan | ImagePlan,
    host: HostPlan | None = None,
    found: Sequence[Found] | None = None,
) -> None:
    """Raise PreflightError when a node runs from ``what``, which is about to be replaced.

    Args:
        project: the cluster.
        what: an environment or an image.
        host: where; default: on this machine.
        found: what runs, where that is known already.
    """
    plan = project.plan
    running = {one.node for one in (found_nodes(project) if found is None else found)}
    nodes = [n for n in plan.nodes if n.name in running and _is_on(plan, n, host)]
    if inside := [node.name for node in nodes if made_of(node) == what]:
        kind, name = "environment", what.key
        if isinstance(what, ImagePlan):
            kind, name = "image", what.tag
        raise PreflightError(
            f"the {kind} {name} has to be made anew, and {', '.join(inside)} runs in it",
            hint="run `saf-env down`, then `saf-env check --fix`, then `saf-env up`",
        )


def _is_on(plan: ClusterPlan, node: NodePlan, host: HostPlan | None) -> bool:
    return plan.host_of(node) == host if host else plan.host_of(node).here

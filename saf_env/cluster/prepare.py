"""Makes what nodes need before they start, and takes nothing away from one that runs."""

from __future__ import annotations

import os
from collections.abc import Collection

from saf_env.cluster.project import Project, found_nodes
from saf_env.cluster.token import ensure_token
from saf_env.errors import BringUpError, PreflightError
from saf_env.plan.build import token_path
from saf_env.plan.model import EnvironmentPlan, ImagePlan, NodePlan
from saf_env.plan.names import host_names, hosts_lines
from saf_env.preflight.registry import OF_ENGINE
from saf_env.provision.environments import ensure_environment, ready
from saf_env.provision.folders import Notify


def prepare(project: Project, step: Notify, notice: Notify, ignore: Collection[str] = ()) -> bool:
    """Make environments, images and names of all nodes, and the driver's, as far as missing.

    Args:
        project: the cluster.
        step: gets one line for each step that takes time.
        notice: gets what the user has to know of.
        ignore: ids of checks that stop nothing.

    Returns:
        Whether names were written, which is for :func:`forget_names` to undo.

    Raises:
        PreflightError: a node runs in an environment that would have to be replaced, or its engine
            cannot be used.
        ToolchainError: something cannot be made exactly as locked.
    """
    plan = project.plan
    native = [node.environment for node in plan.nodes if node.kind == "native"]
    for environment in {e.key: e for e in [*native, plan.driver]}.values():
        if not ready(environment):
            refuse_in_use(project, environment)
        ensure_environment(environment, project.uv, step)
    _make_images(project, step, ignore)
    lines = name_lines(project)
    if not lines or not project.runtime().native.names(lines)[0]:
        return False
    notice(f"wrote the names of cluster {plan.name} to /etc/hosts; `saf-env down` removes them")
    return True


def _make_images(project: Project, step: Notify, ignore: Collection[str]) -> None:
    images = {n.image.key: n.image for n in project.plan.containers if n.image}
    if not images:
        return
    from saf_env.cluster.gate import check, refuse_failed
    from saf_env.provision.images import built, ensure_image, prune

    engine, nodes = project.engine, project.plan.containers
    if engine.answers() and all(built(image, engine) for image in images.values()):
        return
    # Before a build takes its time: an engine of no use fails it, and says less.
    refuse_failed(check(project, nodes, only=OF_ENGINE, ignore=ignore))
    for image in images.values():
        ensure_image(image, project.plan.name, project.uv, engine, step)
        prune(image, project.plan.name, engine)


def forget_names(project: Project) -> None:
    """Take the cluster's lines out of ``/etc/hosts`` when none of its nodes runs."""
    if not found_nodes(project):
        project.runtime().native.names([])


def name_lines(project: Project) -> list[str]:
    """The lines that the cluster needs in ``/etc/hosts``; none when its nodes have no names."""
    return hosts_lines(host_names(project.plan), project.plan.folder.name)


def make_token(project: Project) -> bool:
    """Make the cluster's token unless it is there; True when it was made.

    Raises:
        BringUpError: it is not there, and nodes run that were started with it.
    """
    path = token_path(project.home, project.plan.name)
    if not os.path.exists(path) and found_nodes(project):
        raise BringUpError(
            f"the token {path} is gone, and the cluster that runs lets nobody in without it",
            hint="put the file back; or run `saf-env down`, then `saf-env up`, which makes another",
        )
    return ensure_token(project.home, project.plan.name)


def refuse_in_use(project: Project, what: EnvironmentPlan | ImagePlan) -> None:
    """Raise PreflightError when a node runs from ``what``, which is about to be replaced."""
    running = {found.node for found in found_nodes(project)}
    nodes = [node for node in project.plan.nodes if node.name in running]
    if inside := [node.name for node in nodes if made_of(node) == what]:
        kind, name = "environment", what.key
        if isinstance(what, ImagePlan):
            kind, name = "image", what.tag
        raise PreflightError(
            f"the {kind} {name} has to be made anew, and {', '.join(inside)} runs in it",
            hint="run `saf-env down`, then `saf-env check --fix`, then `saf-env up`",
        )


def made_of(node: NodePlan) -> EnvironmentPlan | ImagePlan | None:
    """What a node is installed in; None for a container whose image the lock does not have."""
    return node.image if node.kind == "container" else node.environment

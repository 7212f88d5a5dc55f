"""Makes what nodes need before they start, and takes nothing away from one that runs."""

from __future__ import annotations

import os
from collections.abc import Collection

from saf_env.cluster.in_use import refuse_in_use
from saf_env.cluster.project import Project, found_nodes
from saf_env.cluster.provisioning import provision_hosts
from saf_env.cluster.token import ensure_token, fetch_token
from saf_env.errors import BringUpError, ToolchainError, UsageError
from saf_env.plan.build import agent_python, token_path
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, ImagePlan, NodePlan
from saf_env.plan.names import host_names, hosts_lines
from saf_env.preflight.registry import OF_ENGINE
from saf_env.provision.environments import ensure_environment, ready
from saf_env.provision.folders import Notify


def prepare(
    project: Project,
    step: Notify,
    notice: Notify,
    *,
    ignore: Collection[str] = (),
    only: Collection[str] = (),
) -> bool:
    """Make environments, images and names of all nodes, and the driver's, as far as missing.

    Args:
        project: the cluster.
        step: gets one line for each step that takes time.
        notice: gets what the user has to know of.
        ignore: ids of checks that stop nothing.
        only: names of the nodes that are to start; empty means all.

    Returns:
        Whether names were written, which is for :func:`forget_names` to undo.

    Raises:
        PreflightError: a node runs in an environment that would have to be replaced, or its engine
            cannot be used.
        ToolchainError: something cannot be made exactly as locked.
    """
    plan = project.plan
    _refuse_engine(project, ignore, only)
    provision_hosts(project, step, only=[*only, plan.head.name] if only else ())
    wanted = [node.environment for node in plan.nodes if _native_here(plan, node)]
    joins = bool(project.hosts().unasked)
    if not joins:
        wanted.append(plan.driver)
    for environment in {e.key: e for e in wanted}.values():
        if not ready(environment):
            refuse_in_use(project, environment)
        try:
            ensure_environment(environment, project.uv, step)
        except ToolchainError as error:
            if joins and environment.interpreter.source == "system":
                raise only_from_elsewhere(plan, "up", "which sends it") from error
            raise
    if joins and wanted:
        _let_be_looked_at(plan, wanted[0])
    for host, image in _images(project, only):
        make_image(project, host, image, step)
    lines = name_lines(project)
    if not lines:
        return False
    changed, _ = project.hosts().write_names(lines)
    for host in changed:
        notice(
            f"wrote the names of cluster {plan.name} to /etc/hosts of {host}; `saf-env down` "
            "removes them"
        )
    return bool(changed)


def only_from_elsewhere(plan: ClusterPlan, command: str, why: str) -> ToolchainError:
    """The error of a host that is asked for an interpreter of another one's system.

    Args:
        plan: the cluster.
        command: of saf-env, that helps where the cluster is run from.
        why: it does.
    """
    return ToolchainError(
        "the lock's Python is one of the machine that locked, and is not to be had here",
        hint=f"run `saf-env {command}` on {plan.controller}, {why}; or lock another there, which "
        "every host can get: `saf-env lock --python-source managed`, or `saf-env toolchain pack`",
    )


def _let_be_looked_at(plan: ClusterPlan, environment: EnvironmentPlan) -> None:
    """Let the host that the cluster is run from find a Python here, as if it had provisioned it."""
    link = agent_python(plan.home)
    try:
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(environment.python.resolve())
    except OSError as error:
        raise UsageError(
            f"cannot make {link}: {error.strerror}", hint="its folder must be yours, and writable"
        ) from error


def _native_here(plan: ClusterPlan, node: NodePlan) -> bool:
    return node.kind == "native" and plan.host_of(node).here


def _refuse_engine(project: Project, ignore: Collection[str], only: Collection[str]) -> None:
    """Judge an engine that has images to build before it does: one of no use fails, and says less.

    Raises:
        PreflightError: a container that is to start could not be built, or not be run.
    """
    plan, hosts = project.plan, project.hosts()
    nodes = [node for node in plan.containers if _needed(project, node, only)]
    wanted = [(n.host, n.image) for n in nodes if n.image]
    if not wanted:
        return
    from saf_env.cluster.gate import check, refuse_failed
    from saf_env.provision.images import built

    def lacks(host: str, image: ImagePlan) -> bool:
        engine = hosts[host].engine
        return not engine.answers() or not built(image, engine)

    doubtful = {host for host, image in wanted if lacks(host, image)}
    if doubtful:
        suspects = [node for node in nodes if node.host in doubtful]
        found = check(project, suspects, only=OF_ENGINE, ignore=ignore)
        # Of a host that has nothing yet, little is known beside its engine; the gate judges it all.
        bare = {node.name for node in suspects if not plan.host_of(node).here}
        refuse_failed([f for f in found if f.level == "fail" or f.node not in bare])


def _needed(project: Project, node: NodePlan, only: Collection[str]) -> bool:
    if node.host in project.hosts().unasked:
        return False
    return not only or node.name in only or node == project.plan.head


def _images(project: Project, only: Collection[str]) -> list[tuple[str, ImagePlan]]:
    """The images that hosts need, this machine's first: others may be sent what it has."""
    plan = project.plan
    nodes = [node for node in plan.containers if _needed(project, node, only)]
    found = {(n.host, n.image.key): n.image for n in nodes if n.image}
    ordered = sorted(found.items(), key=lambda item: not plan.hosts[item[0][0]].here)
    return [(host, image) for (host, _), image in ordered]


def make_image(
    project: Project, host: str, image: ImagePlan, step: Notify, *, rebuild: bool = False
) -> None:
    """Let a host have an image, unless it has, and remove those of earlier locks there.

    What this machine's engine can build is built here, once for all hosts, and sent to them: they
    need no way to a registry or a package index. Else the host's own engine builds it.
    """
    from saf_env.provision.images import builds_for, built, ensure_image, prune, send_image

    engine, cluster = project.hosts()[host].engine, project.plan.folder.name
    if not rebuild and built(image, engine):
        return
    here = project.engine
    if not project.plan.hosts[host].here and builds_for(image, here):
        ensure_image(image, cluster, project.uv, here, step, rebuild=rebuild)
        send_image(image, here, engine, step)
        prune(image, cluster, here)
    else:
        ensure_image(image, cluster, project.uv, engine, step, rebuild=rebuild)
    prune(image, cluster, engine)


def forget_names(project: Project) -> None:
    """Take the cluster's lines out of ``/etc/hosts`` when none of its nodes runs."""
    if not found_nodes(project):
        project.hosts().write_names([])


def name_lines(project: Project) -> list[str]:
    """The lines that the cluster needs in ``/etc/hosts``; none when its nodes have no names."""
    return hosts_lines(host_names(project.plan), project.plan.folder.name)


def make_token(project: Project) -> bool:
    """Make the cluster's token unless it is there; True when it was made.

    On a host that the cluster is not run from it is not ours to make: it is fetched from the head's
    by the user's own ssh.

    Raises:
        BringUpError: it is not there, and nodes run that were started with it; or it cannot be had.
    """
    path = token_path(project.plan.home, project.plan.name)
    if project.hosts().unasked:
        if not path.exists():
            fetch_token(path, project.plan, project.way_to_head())
        return False
    if not os.path.exists(path) and found_nodes(project):
        raise BringUpError(
            f"the token {path} is gone, and the cluster that runs lets nobody in without it",
            hint="put the file back; or run `saf-env down`, then `saf-env up`, which makes another",
        )
    return ensure_token(project.plan.home, project.plan.name)

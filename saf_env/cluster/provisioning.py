"""Makes the other hosts of a cluster what its plan says: looked at first, then provisioned."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import cast

from saf_env.cluster.hosts import Host, refuse_lost
from saf_env.cluster.in_use import refuse_in_use
from saf_env.cluster.project import Project, found_nodes
from saf_env.errors import PreflightError
from saf_env.plan.build import token_path
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, HostPlan
from saf_env.provision.digests import digests
from saf_env.provision.folders import Notify
from saf_env.provision.survey import Survey, refusals, survey
from saf_env.transports.base import FileTransport
from saf_env.uv import uv_binary

_PATH = {"PATH": "/usr/bin:/bin"}


def provision_hosts(
    project: Project,
    step: Notify,
    *,
    only: Collection[str] = (),
    rebuild: Mapping[str, Collection[EnvironmentPlan]] | None = None,
) -> set[tuple[str, str]]:
    """Make environments and token of every other host, as far as missing.

    Args:
        project: the cluster.
        step: gets one line for each step that takes time.
        only: names of the nodes whose hosts are meant; empty means all.
        rebuild: environments to make anew by host; with it, nothing else is made.

    Returns:
        Host and key of the environments that were made.

    Raises:
        HostUnreachableError: a host cannot be reached; nothing was made anywhere.
        PreflightError: a host is not what the cluster file says, or has no room; as above.
        ToolchainError: something cannot be had on a host exactly as locked.
    """
    plan, hosts = project.plan, project.hosts()
    needed = {node.host for node in plan.nodes if not only or node.name in only}
    needed -= hosts.unasked
    others = [name for name, host in plan.hosts.items() if not host.here and name in needed]
    wanted = [name for name in others if rebuild is None or name in rebuild]
    if not wanted:
        return set()
    step(f"looking at {', '.join(wanted)}")
    seen, lost = hosts.ask(wanted, lambda host: survey(host.plan, host.transport))
    refuse_lost(lost)
    todo, lost = hosts.ask(wanted, lambda host: _todo(project, host, rebuild))
    refuse_lost(lost)
    _refuse_unfit(plan, seen, todo)

    running = found_nodes(project) if any(todo.values()) else []

    def make(host: Host) -> None:
        name, way = host.plan.name, cast(FileTransport, host.transport)
        if todo[name] or not _has_tools(host):
            from saf_env.provision.remote import Provisioner

            for environment in todo[name]:
                refuse_in_use(project, environment, host.plan, running)
            home = seen[name].login / host.plan.home
            provisioner = Provisioner(host.plan, home, way, project.uv, step)
            interpreter, uv_version = plan.interpreters[name], plan.driver.uv_version
            provisioner.make(interpreter, uv_version, todo[name], rebuild=rebuild is not None)
        _hand_token(project, host.plan, way)

    _, lost = hosts.ask(wanted, make)
    refuse_lost(lost)
    return {(name, environment.key) for name, made in todo.items() for environment in made}


def _has_tools(host: Host) -> bool:
    """Whether it has the Python by which it is looked at, and uv: who joined made only the rest."""
    tools = [str(host.python), str(uv_binary(host.plan.home))]
    there = ["sh", "-c", '[ -x "$1" ] && [ -x "$2" ]', "sh", *tools]
    return host.transport.run(there, env=_PATH, timeout=30.0).ok


def _todo(
    project: Project, host: Host, rebuild: Mapping[str, Collection[EnvironmentPlan]] | None
) -> list[EnvironmentPlan]:
    """The environments to make on ``host``."""
    if rebuild is not None:
        return list(rebuild[host.plan.name])
    from saf_env.provision.remote import unready

    native = [n for n in project.plan.on(host.plan.name) if n.kind == "native"]
    planned = {node.environment.key: node.environment for node in native}
    return unready(host.plan, cast(FileTransport, host.transport), list(planned.values()))


def _refuse_unfit(
    plan: ClusterPlan,
    seen: Mapping[str, Survey],
    todo: Mapping[str, Collection[EnvironmentPlan]],
) -> None:
    wrong = [
        f"    {name}: {reason}"
        for name, found in seen.items()
        for reason in refusals(
            plan.hosts[name], found, roomy=bool(todo[name]), mlx=_has_mlx(plan, name)
        )
    ]
    if wrong:
        raise PreflightError(
            "these hosts cannot run their nodes. Nothing was started.\n" + "\n".join(wrong),
            hint="mend what is named above, then run the same command again",
        )


def _has_mlx(plan: ClusterPlan, host: str) -> bool:
    """Whether a native node of ``host`` has MLX; what a container needs, its image has."""
    return any("mlx" in n.environment.packages for n in plan.on(host) if n.kind == "native")


def _hand_token(project: Project, host: HostPlan, way: FileTransport) -> None:
    """Give a host the cluster's token, unless it has it."""
    name = project.plan.name
    source, target = token_path(project.plan.home, name), token_path(host.home, name)
    data = source.read_bytes()
    if digests(way, [target], private=True) != [hashlib.sha256(data).hexdigest()]:
        way.put(data, str(target), mode=0o600, timeout=60.0)

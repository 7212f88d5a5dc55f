"""Services that bring native nodes back after a reboot: installed, removed and looked at."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from saf_env.cluster.hosts import Host, Hosts, refuse_lost
from saf_env.cluster.managers import Login, State, login, manager_of, run
from saf_env.cluster.same_plan import plan_digest
from saf_env.errors import BringUpError, NoProgramError, UsageError
from saf_env.plan.build import services_path, token_path
from saf_env.plan.model import ClusterPlan, HostPlan, NodePlan
from saf_env.provision.code import program
from saf_env.provision.folders import Notify
from saf_env.runtimes.agent import SERVICE
from saf_env.runtimes.services import PROGRAM, Service, note, read
from saf_env.transports.base import FileTransport

_MAIN = "from saf_env.runtimes.launcher import main\n\nmain()\n"

# Arguments: the manager's file, the note, Python, the token. A file without a note is not ours.
_LOOK = r"""
[ -x "$3" ] && [ -f "$4" ] || { echo bare; exit; }
if [ -e "$1" ] && [ ! -e "$2" ]; then echo taken; else echo free; fi
"""


# Arguments: the folder of services, the note's name, and how notes of ours write the temp folder.
_INSTALLED = r"""
cd -- "$1" 2>/dev/null || exit 0
for node in *; do if grep -qF "\"temp\": $3" "$node/$2" 2>/dev/null; then echo "$node"; fi; done
"""


@dataclass(frozen=True)
class ServiceStatus:
    """The service of one node.

    Attributes:
        node, host: their names.
        state: ``absent``: there is none; ``active``: it keeps the node running, or waits to start
            it; ``inactive``: the next boot starts it; ``failed``: it has given up, its log says
            why; ``outdated``: it would start the node of an earlier plan.
        unit: name of the systemd unit or the launchd agent.
    """

    node: str
    host: str
    state: State
    unit: str

    def as_json(self) -> dict[str, str]:
        """One entry of ``services`` in ``saf-env service status --json``."""
        return {"node": self.node, "host": self.host, "state": self.state, "unit": self.unit}


def refuse_containers(nodes: Sequence[NodePlan]) -> None:
    """Raise UsageError when one of ``nodes`` is a container."""
    if inside := [node.name for node in nodes if node.kind == "container"]:
        raise UsageError(
            f"{', '.join(inside)} need no service: Docker starts containers again after a reboot",
            hint="have the Docker engine itself start at boot (on a Mac: at login)",
        )


def install(plan: ClusterPlan, hosts: Hosts, nodes: Sequence[NodePlan], step: Notify) -> None:
    """Let native ``nodes`` come back after a reboot of their hosts; what runs is left alone.

    A node that runs is watched by its service from now on; one that does not is not started. A
    service that is there and at work, or waits for the head, goes on with the new plan.

    Raises:
        BringUpError: a host cannot do it, or is not provisioned yet; the others are done.
        HostUnreachableError: a host cannot be reached; as above.
    """

    def one(host: Host) -> None:
        user = login(host)
        running: set[str] = set()
        with contextlib.suppress(NoProgramError):  # there is nothing yet, which is told below
            running = {found.node for found in host.runtime.native.find() if found.leader}
        for node in nodes:
            if node.host == host.plan.name:
                step(f"{host.plan.name}: installing the service of {node.name}")
                service = _service(plan, host, node, user)
                command = "join" if hosts.unasked else "up"
                _refuse(host, service, f"saf-env {command} {node.name}")
                _install(host, service, user, running=node.name in running)

    _, lost = hosts.ask((node.host for node in nodes), one)
    refuse_lost(lost)


def remove(cluster: str, hosts: Hosts, nodes: Sequence[tuple[str, str]], step: Notify) -> list[str]:
    """Remove the services of ``nodes`` (name and host), and return the names of those that had one.

    The nodes run on.

    Raises:
        BringUpError: something of a service cannot be removed.
        HostUnreachableError: a host cannot be reached; the others are done.
    """

    def one(host: Host) -> list[str]:
        here = [node for node, name in nodes if name == host.plan.name]
        found = [node for node in here if node in _installed(host, cluster, hosts.folder)]
        for node in found:
            step(f"{host.plan.name}: removing the service of {node}")
            _remove(host, cluster, node)
        return found

    answers, lost = hosts.ask((host for _, host in nodes), one)
    refuse_lost(lost)
    return [node for found in answers.values() for node in found]


def elsewhere(cluster: str, hosts: Hosts) -> list[tuple[str, str]]:
    """Name and host of all nodes that have a service on a host other than this machine.

    Raises:
        HostUnreachableError: a host cannot be reached.
    """
    others = [name for name in hosts.names if not hosts[name].plan.here]
    answers, lost = hosts.ask(others, lambda host: _installed(host, cluster, hosts.folder))
    refuse_lost(lost)
    return [(node, host) for host, nodes in answers.items() for node in nodes]


def status(plan: ClusterPlan, hosts: Hosts, nodes: Sequence[NodePlan]) -> list[ServiceStatus]:
    """The services of ``nodes``, in their order.

    Raises:
        HostUnreachableError: a host cannot be reached.
    """

    def one(host: Host) -> dict[str, ServiceStatus]:
        here = [node for node in nodes if node.host == host.plan.name]
        return {node.name: _status(host, plan, node) for node in here}

    answers, lost = hosts.ask((node.host for node in nodes), one)
    refuse_lost(lost)
    found = {name: one for answer in answers.values() for name, one in answer.items()}
    return [found[node.name] for node in nodes]


# One host


def _folder(host: HostPlan, cluster: str, node: str) -> Path:
    return services_path(host.home, cluster) / node


def _service(plan: ClusterPlan, host: Host, node: NodePlan, user: Login) -> Service:
    """The service of ``node``, with paths that are true wherever it runs."""
    env = node.environment
    there = replace(node, environment=replace(env, path=user.home / env.path))
    # Not what runs saf-env here, which is the user's own; nor by way of the environment, since who
    # finds that one damaged has to run.
    python = env.python.resolve() if host.plan.here else host.python
    return Service(
        cluster=plan.name,
        host=host.plan.name,
        address=plan.address,
        digest=plan_digest(node, plan.address),
        temp=plan.folder,
        token=user.home / token_path(host.plan.home, plan.name),
        folder=user.home / _folder(host.plan, plan.name, node.name),
        python=user.home / python,
        node=there,
    )


def _install(host: Host, service: Service, user: Login, *, running: bool) -> None:
    node, manager = service.node.name, manager_of(host.plan)
    name = manager.name(service.cluster, node)
    file = manager.file(name)
    text = manager.text(service, user)
    manager.prepare(host, user, node)
    _put(host, _program(), service.folder / PROGRAM)
    _put(host, note(service, *manager.commands(name, user)).encode(), service.folder / SERVICE)
    _put(host, text, user.home / file)
    done = manager.enable(host, name, str(service.folder), start=running)
    if not done.ok:
        manager.remove(host, name, str(service.folder))
        raise manager.refused(host, node, done)


def _refuse(host: Host, service: Service, command: str) -> None:
    """Refuse a host that has nothing to start yet, and a name that another project has.

    Args:
        host: which.
        service: what is to be installed there.
        command: by which the node is started first.
    """
    manager = manager_of(host.plan)
    file = manager.file(manager.name(service.cluster, service.node.name))
    node, words = service.node.name, (file, str(service.folder / SERVICE))
    seen = run(host, _LOOK, *words, str(service.python), str(service.token)).stdout.strip()
    if seen == "bare":
        raise BringUpError(
            f"{host.plan.name} has nothing yet that a service could start",
            hint=f"run `{command}` once, then the same command again",
            node=node,
        )
    if seen == "taken":
        raise BringUpError(
            f"{host.plan.name}: ~/{file} is there, and not of this project: another one has a "
            f"cluster {service.cluster} with a node {node}",
            hint=f"run `saf-env service remove {node}` in that project, or remove the file by "
            "hand, or give this cluster another name",
            node=node,
        )


def _program() -> bytes:
    import packaging

    return program(_MAIN, packaging)


def _put(host: Host, data: bytes, path: Path) -> None:
    """Write a file on a host; one that was there is replaced."""
    if not host.plan.here:
        cast(FileTransport, host.transport).put(data, str(path), mode=0o600, timeout=600.0)
        return
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_bytes(data)
        new.chmod(0o600)
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise BringUpError(
            f"cannot write {path}: {error.strerror}",
            hint="it has to be writable, with free space; then run the same command again",
        ) from error


def _installed(host: Host, cluster: str, temp: Path) -> list[str]:
    """Names of the nodes that have a service there, of the cluster whose temp folder is ``temp``.

    Another project's may have the same name, and so the same folder.
    """
    folder = str(services_path(host.plan.home, cluster))
    seen = run(host, _INSTALLED, folder, SERVICE, json.dumps(str(temp)))
    return seen.stdout.split() if seen.ok else []


def _remove(host: Host, cluster: str, node: str) -> None:
    manager = manager_of(host.plan)
    name = manager.name(cluster, node)
    done = manager.remove(host, name, str(_folder(host.plan, cluster, node)))
    if not done.ok:
        raise BringUpError(
            f"{host.plan.name}: the service of {node} cannot be removed: {done.tail(2)}",
            hint=f"remove ~/{manager.file(name)} there by hand, then run the same command again",
            node=node,
        )


def _status(host: Host, plan: ClusterPlan, node: NodePlan) -> ServiceStatus:
    manager = manager_of(host.plan)
    name = manager.name(plan.name, node.name)
    folder = _folder(host.plan, plan.name, node.name)
    found = run(host, 'cat -- "$1"', str(folder / SERVICE))
    state: State = "absent"
    if found.ok:
        state = manager.status(host, name, str(folder))
        if state != "failed" and _digest(found.stdout) != plan_digest(node, plan.address):
            state = "outdated"
    return ServiceStatus(node.name, node.host, state, name)


def _digest(text: str) -> str:
    """Digest of the plan that a note was made from; empty for another saf-env's."""
    try:
        return read(text).digest
    except (ValueError, KeyError, TypeError):
        return ""

"""From a cluster file, or a cluster's state, to its hosts: the way to each, what runs its nodes."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from saf_env.cluster import state as states
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine, RemoteEngine
from saf_env.errors import HostUnreachableError, UsageError
from saf_env.plan.build import agent_python, folder_of, host_plans, temp_dir, token_path
from saf_env.plan.model import HostPlan
from saf_env.platforms import this_platform
from saf_env.provision.handing import hand_over, hand_over_there
from saf_env.runtimes.agent import private_folder
from saf_env.runtimes.compose import ComposeRuntime
from saf_env.runtimes.native import NativeRuntime
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import FileTransport, Transport
from saf_env.transports.local import LocalTransport
from saf_env.transports.unasked import UnaskedTransport

if TYPE_CHECKING:
    from saf_env.transports.ssh import SshTransport


def this_host(spec: ClusterSpec) -> str:
    """The host of ``spec`` that this machine is.

    The one whose address this machine has; else the one that is not reached over SSH.
    """
    if len(spec.hosts) > 1:
        ours = [h.name for h in spec.hosts.values() if h.address and _is_local(h.address)]
        if len(ours) == 1:
            return ours[0]
    return spec.here


def _is_local(address: str) -> bool:
    """Whether ``address`` is one of this machine's: only such can be listened on."""
    try:
        places = socket.getaddrinfo(
            address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        for family, kind, protocol, _, place in places:
            with socket.socket(family, kind, protocol) as trial:
                trial.bind(place)
    except OSError:  # also of a name: where it leads to, differs from place to place
        return False
    return True


class Connections:
    """Makes the hosts of the clusters of one project, with one way to each for all its work.

    Args:
        home: the folder of the cluster's state on this machine, absolute.
        local: this machine.
        engine: its Docker engine.
        environ: variables of the user.
    """

    def __init__(
        self, home: Path, local: Transport, engine: Engine, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._home = home
        self._local = local
        self._engine = engine
        self._environ = environ
        self._ways: dict[HostPlan, SshTransport] = {}
        self._given_up: dict[str, dict[str, HostUnreachableError]] = {}
        self._held: dict[str, dict[str, Callable[[], None]]] = {}

    def way(self, host: HostPlan, spec: ClusterSpec) -> FileTransport:
        """The way to another host, also to one that this machine does not ask as a rule."""
        return self._way(host, temp_dir(self._home, spec))

    def hosts(self, cluster: str, spec: ClusterSpec | None = None, here: str = "") -> Hosts:
        """The hosts of a cluster.

        Args:
            cluster: its name.
            spec: its cluster file; without one they are those that its nodes were started on.
            here: the host of ``spec`` that this machine is.
        """
        state = states.read(self._home, cluster)
        plans, places, head = dict(state.hosts), {s.node: s.host for s in state.recorded}, ""
        unasked: set[str] = set()
        folder = Path("/tmp") / (state.folder or folder_of(str(self._home), cluster).name)
        own = this_platform()
        platform = own.name if own else "linux-x86_64"
        if spec is not None:
            head = spec.head.host
            if not state.nodes:  # what runs is looked for where it was started
                folder = temp_dir(self._home, spec)
            # What this machine is called may have changed since.
            plans = {name: plan for name, plan in plans.items() if not plan.here}
            plans |= host_plans(spec, self._home, here, platform)
            places |= {node.name: node.host for node in spec.nodes}
            unasked = set() if spec.controlled_from(here) else {*spec.hosts} - {here}
        if not any(plan.here for plan in plans.values()):
            plans[""] = HostPlan("", "", platform, "", None, self._home)
        inside = {name for name, plan in plans.items() if plan.here}
        if spec is not None:
            inside = {node.host for node in spec.nodes if node.kind == "container"}
        made = {
            name: self._host(plan, cluster, folder, containers=name in inside)
            for name, plan in plans.items()
            if name not in unasked
        }
        made |= {name: self._unasked(plans[name], spec.here) for name in unasked if spec}
        given_up = self._given_up.setdefault(cluster, {})
        return Hosts(made, folder, places, head, given_up, self._held.setdefault(cluster, {}))

    def _host(self, plan: HostPlan, cluster: str, folder: Path, *, containers: bool) -> Host:
        token, place = token_path(plan.home, cluster), states.folder(self._home, cluster)
        way: Transport
        if plan.here:
            way, engine, python = self._local, self._engine, Path(sys.executable)
            native = NativeRuntime(way, python, folder, token, self._environ, here=True)
            file, hand = place / "compose.json", partial(hand_over, token)
        else:
            way, python = self._way(plan, folder), agent_python(plan.home)
            native = NativeRuntime(way, python, folder, token, {})
            engine = self._engine_of(plan, way, folder)
            file, hand = place / f"compose-{plan.name}.json", partial(hand_over_there, way, token)
        compose = None
        if containers or file.exists():
            compose = ComposeRuntime(engine, folder.name, file, hand)
        return Host(plan, way, Runtimes(native, compose), engine, python)

    def _unasked(self, plan: HostPlan, controller: str) -> Host:
        way = UnaskedTransport(plan.name, controller)
        native = NativeRuntime(way, agent_python(plan.home), Path("/"), Path("/"), {})
        python = agent_python(plan.home)
        return Host(plan, way, Runtimes(native), Engine(way, {}), python, asked=False)

    def _engine_of(self, plan: HostPlan, way: SshTransport, folder: Path) -> Engine:
        # By who is meant, not by the name: what is left of an earlier way leads somewhere else.
        place = hashlib.sha256(f"{plan.ssh} {plan.port}".encode()).hexdigest()[:10]
        sockets = folder / "ssh" / f"docker-{place}"
        return RemoteEngine(LocalTransport(plan.name), self._environ, way=way, sockets=sockets)

    def _way(self, plan: HostPlan, folder: Path) -> SshTransport:
        from saf_env.transports.ssh import SshTransport

        if plan not in self._ways:
            sockets = folder / "ssh"
            try:
                private_folder(str(folder))
                private_folder(str(sockets))
            except OSError as error:
                raise UsageError(
                    f"cannot make {sockets}: {error.strerror or error}",
                    hint="it is for the connections to other hosts, and for you only",
                ) from error
            self._ways[plan] = SshTransport(
                plan.name, plan.ssh, folder=sockets, environ=self._environ, port=plan.port
            )
        return self._ways[plan]

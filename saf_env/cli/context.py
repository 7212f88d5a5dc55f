"""What commands have in common: where the project is, and the values that stages hand on."""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from saf_env.errors import BringUpError, ClusterFileError, LockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from saf_env.cluster.connect import Connections
    from saf_env.cluster.gcs import Gcs
    from saf_env.cluster.hosts import Host, Hosts
    from saf_env.engine import Engine
    from saf_env.lock.model import Lock
    from saf_env.plan.model import ClusterPlan, NodePlan
    from saf_env.runtimes.base import Started
    from saf_env.spec.model import ClusterSpec
    from saf_env.transports.base import FileTransport, Transport
    from saf_env.uv import Uv


_STARTED = (
    "it was started so when there were no containers here; `saf-env down`, then `saf-env up` make "
    "it one"
)


def _digest_with_rules(text: str) -> str:
    """Digest of a cluster file and of the rules it is judged by: new rules judge it again."""
    package = Path(__file__).parents[1]
    rules = ("schemas/cluster.json", "spec/parse.py", "spec/rules.py")
    digest = hashlib.sha256(text.encode())
    for name in rules:
        digest.update((package / name).read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Context:
    """One call of ``saf-env``.

    Attributes:
        home: the project folder, absolute: the cluster file and the lock lie there.
        file: the cluster file, absolute.
    """

    home: Path
    file: Path

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Context:
        """From the options that every command has.

        Raises:
            UsageError: the project folder is none.
        """
        home = Path(arguments.project or ".").absolute()
        if not home.is_dir():
            raise UsageError(f"there is no folder {home}", hint="name another with --project")
        # resolve(): one cluster has one id, whichever way its folder was reached.
        home = home.resolve()
        file = Path(arguments.file).absolute() if arguments.file else home / "cluster.toml"
        return cls(home, file)

    @cached_property
    def spec(self) -> ClusterSpec:
        """The cluster file.

        Looking for mistakes takes a quarter of a second; a text that was found right once is not
        looked at again.
        """
        from saf_env.spec.parse import parse, read
        from saf_env.uv import own_folder

        text = read(self.file)
        proven = self.home / ".saf" / "proven" / _digest_with_rules(text)
        spec = parse(text, trusted=proven.exists())
        try:
            own_folder(self.home)
            proven.parent.mkdir(exist_ok=True)
            proven.touch()
        except OSError:
            pass  # a read-only project can be looked at all the same
        return spec

    @cached_property
    def lock(self) -> Lock:
        """The lock as it lies in ``lockfiles/``, fresh or not.

        Raises:
            LockError: there is none, or it is damaged.
        """
        from saf_env.lock.files import read

        return read(self.home, self.spec.name)

    def fresh_lock(self) -> Lock:
        """The lock, which must have been made from this very cluster file.

        Raises:
            LockError: it is missing, damaged or stale; the message says which.
        """
        lock = self.lock
        if reasons := self.stale():
            raise LockError(
                f"the lock of cluster {self.spec.name} is stale: {'; '.join(reasons)}",
                hint="run `saf-env lock` and look at what changes",
            )
        return lock

    def stale(self) -> list[str]:
        """Why the lock does not fit the cluster file; empty when it does."""
        from saf_env.lock.files import freshness

        return list(freshness(self.spec, self.home))

    @cached_property
    def plan(self) -> ClusterPlan:
        """The plan of the cluster file and the lock in place.

        Whether container nodes fall back is decided when they are started: what runs in containers
        is not planned as processes because its engine has a bad minute. Only hosts are looked at
        that have nodes which may fall back. A host that asks no others knows of the head what runs.
        """
        _ = self.lock  # without one, nobody needs to ask an engine
        may_fall_back = {node.host for node in self.spec.nodes if node.fallback}
        inside = {
            s.host if s.host in self.spec.hosts else self.here for s in self._recorded if not s.pid
        }
        asked = may_fall_back - inside
        obstacles, lost = self.hosts().ask(asked, self._obstacle) if asked else ({}, {})
        obstacles |= {host: _STARTED for host in lost if self._started_natively(host)}
        plan = self._planned(obstacles)
        here = self.here
        if not self.controls:  # the host that the cluster is run from plans it as it is for itself
            return self._as_its_head(plan, obstacles)
        if here in asked and not obstacles[here] and (obstacle := self._nameless(plan, here)):
            return self._planned({**obstacles, here: obstacle})
        return plan

    def _as_its_head(self, plan: ClusterPlan, obstacles: Mapping[str, str]) -> ClusterPlan:
        """``plan``, or the one whose head has fallen back, where that is what runs.

        Only the head's host sees its engine; to others the mark of what runs there tells.
        """
        from saf_env.cluster.same_plan import plan_digest
        from saf_env.plan.build import token_path
        from saf_env.provision.environments import ready

        head = plan.head
        if not self.spec.head.fallback or head.host == self.here or head.fallback_reason:
            return plan
        other = self._planned({**obstacles, head.host: f"it runs so on {head.host}"})
        gcs = self._gcs_of(other)
        asks = gcs.via.host == self.here and ready(gcs.via.environment)
        if not asks or not token_path(plan.home, plan.name).exists():
            return plan
        try:
            runs = [node.run for node in gcs.nodes() or () if node.alive and node.name == head.name]
        except BringUpError:  # who needs the head tells what is wrong
            return plan
        mark = plan_digest(other.head, other.address)
        return other if any(run.split(".")[0] == mark for run in runs) else plan

    def plan_anew(self) -> None:
        """Plan again: here is more now by which the head can be looked at, see :attr:`plan`."""
        if not self.controls and self.spec.head.fallback:
            for name in ("plan", "gcs"):
                vars(self).pop(name, None)

    def _obstacle(self, host: Host) -> str:
        """Why nodes of ``host`` that may fall back have to; empty when they need not."""
        from saf_env.plan.build import ENGINE_ELSEWHERE, NO_ENGINE

        if not host.engine.answers():
            return NO_ENGINE if host.plan.here else f"no Docker engine answers on {host.plan.name}"
        if not host.engine.is_here():
            return ENGINE_ELSEWHERE
        return _STARTED if self._started_natively(host.plan.name) else ""

    def _started_natively(self, host: str) -> bool:
        """Whether a node of ``host`` that may fall back did when it was started."""
        nodes = {n.name for n in self.spec.nodes if n.fallback and n.host == host}
        return bool(nodes & {s.node for s in self._recorded if s.pid})

    def _planned(self, no_containers: Mapping[str, str]) -> ClusterPlan:
        from saf_env.plan.build import build

        return build(self.spec, self.lock, self.place, here=self.here, no_containers=no_containers)

    def _nameless(self, plan: ClusterPlan, host: str) -> str:
        """Why the native nodes of this machine would not find containers; empty when they would."""
        from saf_env.plan.names import host_names, hosts_command, hosts_lines

        lines = hosts_lines(host_names(plan), plan.folder.name)
        native = any(n.host == host and n.kind == "native" for n in plan.nodes)
        if (
            not lines
            or not native
            or not self.hosts()[host].runtime.native.names(lines, look=True)[1]
        ):
            return ""
        return (
            f"this user may not write its name to /etc/hosts. For containers, run "
            f"`{hosts_command(lines)}`, then `saf-env down` and `saf-env up`"
        )

    @cached_property
    def here(self) -> str:
        """The host of the cluster file that this machine is.

        The one whose address this machine has; else the one that is not reached over SSH.
        """
        from saf_env.cluster.connect import this_host

        return this_host(self.spec)

    @property
    def controls(self) -> bool:
        """Whether the cluster is run from this machine; elsewhere only its own nodes are asked."""
        return self.spec.controlled_from(self.here)

    @cached_property
    def place(self) -> Path:
        """Where the cluster's state, token and environments lie on this machine.

        The project folder where the cluster is run from. On any other host, the folder that it is
        provisioned in from there: both ways to start a node are of one mind about it.
        """
        from saf_env.plan.build import remote_home

        try:
            if self.controls:
                return self.home
            return Path.home() / remote_home(self.spec.hosts[self.here], self.spec.name)
        except ClusterFileError:  # what runs can be stopped all the same
            return self.home

    @property
    def _recorded(self) -> list[Started]:
        """What was started and not stopped."""
        from saf_env.cluster import state as states

        return states.read(self.place, self.spec.name).recorded

    @cached_property
    def engine(self) -> Engine:
        """The Docker engine of this machine."""
        from saf_env.engine import Engine

        return Engine(self.transport, os.environ)

    @cached_property
    def uv(self) -> Uv:
        """The pinned uv."""
        from saf_env.uv import find_uv

        # What is made on this machine lies in one place, whatever becomes of the project folder.
        return replace(find_uv(self.home, os.environ), place=self.place)

    @cached_property
    def transport(self) -> Transport:
        """This machine."""
        from saf_env.transports.local import LocalTransport

        return LocalTransport()

    @cached_property
    def gcs(self) -> Gcs:
        """The running cluster's GCS."""
        return self._gcs_of(self.plan)

    def _gcs_of(self, plan: ClusterPlan) -> Gcs:
        from saf_env.cluster.gcs import Gcs

        hosts = self.hosts()
        native = [n for n in plan.on(self.here) if n.kind == "native"]
        via = plan.head if self.controls or not native else native[0]
        environ = os.environ if plan.host_of(via).here else {}
        return Gcs(plan, via, lambda: hosts.transport(via), environ)

    def way_to_head(self) -> FileTransport:
        """This user's own ssh to the head's host, also where that is not asked as a rule."""
        return self._connections.way(self.plan.host_of(self.plan.head), self.spec)

    def hosts(self, cluster: str = "") -> Hosts:
        """The hosts of ``cluster``, by default the cluster file's, which is the one in force.

        Of any other, and where the cluster file has a mistake, those that nodes were started on.
        """
        try:
            spec = self.spec
        except ClusterFileError:
            if not cluster:
                raise
            return self._connections.hosts(cluster)
        if cluster not in ("", spec.name):
            return self._connections.hosts(cluster)
        return self._connections.hosts(spec.name, spec, self.here)

    @cached_property
    def _connections(self) -> Connections:
        from saf_env.cluster.connect import Connections

        return Connections(self.place, self.transport, self.engine)

    def nodes(self, names: Sequence[str]) -> tuple[NodePlan, ...]:
        """The planned nodes called ``names``, or all on hosts that this machine asks.

        Raises:
            UsageError: there is no such node, or it is not for this machine to ask.
        """
        known = [node.name for node in self.plan.nodes]
        self.refuse_unknown(names, known, "node")
        self.refuse_elsewhere(names)
        return tuple(n for n in self.own_nodes() if not names or n.name in names)

    def own_nodes(self) -> tuple[NodePlan, ...]:
        """The nodes on hosts that this machine asks: all of them where the cluster is run from."""
        unasked = self.hosts().unasked
        return tuple(node for node in self.plan.nodes if node.host not in unasked)

    def refuse_elsewhere(self, nodes: Iterable[str]) -> None:
        """Raise UsageError when one of ``nodes`` is on a host that this machine does not ask."""
        unasked = self.hosts().unasked
        for node in self.spec.nodes:
            if node.name in nodes and node.host in unasked:
                raise UsageError(
                    f"{node.name} is on {node.host}, and this machine is {self.here}",
                    hint=f"run the command on {self.spec.here}, from which the cluster is run, or "
                    f"on {node.host} itself",
                )

    def refuse_unsupported(self, nodes: Sequence[NodePlan]) -> None:
        """Raise UsageError when the host of one of ``nodes`` can be given no Python of its own."""
        hosts = {node.host for node in nodes} - {*self.plan.interpreters, self.here}
        if hosts:
            raise UsageError(
                f"the lock has no Python for {', '.join(sorted(hosts))} itself, where there are "
                "containers only: saf-env looks at a host by one",
                hint='give one of its container nodes fallback = "native", or add a native node to '
                "it, then run `saf-env lock`",
            )

    @staticmethod
    def refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raise UsageError for the first of ``names`` that is not ``known``."""
        from saf_env.spec.words import nearest

        for name in names:
            if name not in known:
                raise UsageError(
                    f'there is no {what} "{name}"',
                    hint=nearest(name, known, f"{what}s"),
                )

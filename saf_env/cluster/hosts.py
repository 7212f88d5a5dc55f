"""The hosts of one cluster, each with the way there and what runs its nodes, used as one.

Hosts are asked side by side. One that cannot be reached keeps the others from nothing: it is told
once they have done their part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from saf_env.cluster.claims import LEAVE, PURGE, belongs_to_another
from saf_env.cluster.runtimes import Deaths, LogText, Runtimes
from saf_env.engine import Engine
from saf_env.errors import BringUpError, HostUnreachableError, NoProgramError
from saf_env.plan.model import ClusterPlan, HostPlan, NodePlan
from saf_env.runtimes.base import Found, Started, on_own_hosts
from saf_env.transports.base import CommandResult, FileTransport, Transport

AT_ONCE = 16
"""Hosts that are asked at the same time: each takes a process and a connection of this machine."""

_PATH = {"PATH": "/usr/bin:/bin"}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        plan: what it is.
        transport: the way there.
        runtime: runs its nodes.
        engine: its Docker engine, if it has one.
        python: a Python of ours on it, by which it is looked at; on another host it is there once
            the host is provisioned.
        asked: whether this machine asks it. Only the host that the cluster is run from asks others.
    """

    plan: HostPlan
    transport: Transport
    runtime: Runtimes
    engine: Engine
    python: Path
    asked: bool = True


class Hosts:
    """All hosts of a cluster.

    Args:
        hosts: by name.
        folder: the cluster's temp folder, the same on all of them.
        places: the host of every node by name, as far as the cluster file and the state tell.
        head: name of the head's host, which is stopped last.
        given_up: hosts that are not asked any more, and why: see :meth:`give_up`.
        held: by host, what raises once its lock is lost: see :func:`saf_env.cluster.hold.hold`.
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        folder: Path,
        places: Mapping[str, str],
        head: str,
        given_up: dict[str, HostUnreachableError] | None = None,
        held: dict[str, Callable[[], None]] | None = None,
    ) -> None:
        self._hosts = hosts
        self._folder = folder
        self._places = places
        self._head = head
        self.given_up = {} if given_up is None else given_up
        self.held = {} if held is None else held

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    @property
    def names(self) -> list[str]:
        """Names of all hosts."""
        return list(self._hosts)

    @property
    def unasked(self) -> set[str]:
        """Names of those that this machine does not ask: of them it knows what Ray tells."""
        return {name for name, host in self._hosts.items() if not host.asked}

    @property
    def folder(self) -> Path:
        """The cluster's temp folder, the same on all of them; its name is the cluster id."""
        return self._folder

    @property
    def head(self) -> str:
        """Name of the head's host; empty where nobody knows it any more."""
        return self._head

    def give_up(self, lost: Mapping[str, HostUnreachableError]) -> None:
        """Ask the hosts of ``lost`` no more: each of them would be waited for again."""
        self.given_up.update(lost)

    def refuse_given_up(self, name: str) -> None:
        """Raise HostUnreachableError when the host is not asked any more."""
        if name in self.given_up:
            raise self.given_up[name]

    def _refuse_unheld(self, name: str) -> None:
        """Raise HostUnreachableError when the lock by which we change a host is lost."""
        if name in self.held:
            self.held[name]()

    def ask(
        self, names: Iterable[str], question: Callable[[Host], _Answer]
    ) -> tuple[dict[str, _Answer], dict[str, HostUnreachableError]]:
        """Ask the hosts ``names`` side by side, less those that are not for us to ask.

        Returns:
            The answers by host, and for those that could not be reached, why.

        Raises:
            SafEnvError: what ``question`` raised else, once all were asked.
        """
        wanted = [name for name in dict.fromkeys(names) if self._hosts[name].asked]
        lost: dict[str, HostUnreachableError] = {}

        def one(name: str) -> list[_Answer]:
            try:
                self.refuse_given_up(name)
                return [question(self._hosts[name])]
            except HostUnreachableError as error:
                lost[name] = error
                return []

        if len(wanted) == 1:  # most clusters are of one machine, and threads take their time
            found = [one(wanted[0])]
        else:
            pool = ThreadPoolExecutor(max_workers=AT_ONCE)
            try:
                found = list(pool.map(one, wanted))
            except KeyboardInterrupt:
                self.close()  # what waits for a host ends with its connection
                self.held.clear()  # so do the locks, and what was begun is taken back all the same
                raise
            finally:
                pool.shutdown(cancel_futures=True)
        return {name: x[0] for name, x in zip(wanted, found, strict=True) if x}, lost

    def look(
        self, recorded: Sequence[Started] = ()
    ) -> tuple[list[Found], dict[str, HostUnreachableError]]:
        """What runs of the cluster's nodes; with the hosts that cannot be asked, and why."""

        def one(host: Host) -> list[Found]:
            try:
                found = host.runtime.find(self._on(host.plan.name, recorded))
            except NoProgramError:  # nothing of ours was ever there
                return []
            return [_stamped(f, host.plan.name) for f in found]

        answers, lost = self.ask(self.names, one)
        found = [one for answer in answers.values() for one in answer]
        return on_own_hosts(found, self._places), lost

    def start(self, node: NodePlan, address: str, run: str) -> Started:
        """Start a native node; see :meth:`saf_env.runtimes.native.NativeRuntime.start`."""
        self._refuse_unheld(node.host)
        started = self._hosts[node.host].runtime.native.start(node, address, run)
        return replace(started, host=node.host)

    def start_containers(
        self, plan: ClusterPlan, nodes: Sequence[NodePlan], runs: Mapping[str, str]
    ) -> list[Started]:
        """Start container nodes, those of several hosts side by side.

        See :meth:`saf_env.runtimes.compose.ComposeRuntime.start`.

        Raises:
            HostUnreachableError: a host cannot be reached.
        """

        def one(host: Host) -> list[Started]:
            self._refuse_unheld(host.plan.name)
            here = [node for node in nodes if node.host == host.plan.name]
            started = host.runtime.start_containers(plan, here, runs)
            return [replace(each, host=host.plan.name) for each in started]

        answers, lost = self.ask((node.host for node in nodes), one)
        refuse_lost(lost)
        return [started for answer in answers.values() for started in answer]

    def refuse_silence(self, recorded: Sequence[Started]) -> None:
        """Raise BringUpError when nobody can tell which of the ``recorded`` containers run."""
        for name, host in self._hosts.items():
            with contextlib.suppress(HostUnreachableError):  # which look() tells
                if not host.asked or name in self.given_up:
                    continue
                host.runtime.refuse_silence(self._on(name, recorded))

    def stop(
        self, names: Collection[str], recorded: Sequence[Started]
    ) -> tuple[list[str], dict[str, HostUnreachableError]]:
        """Stop nodes by name, or all.

        The head's host comes last, so that the others' raylets can sign off.

        Returns:
            The names of those that ran; and of hosts that cannot be reached, what is left there.

        Raises:
            BringUpError: a process could not be ended.
        """
        wanted = self.concerned(names, recorded)
        others = [name for name in wanted if name != self._head]
        stopped: list[str] = []
        lost: dict[str, HostUnreachableError] = {}
        broken: list[BringUpError] = []

        def one(host: Host) -> list[str]:
            try:
                return self._stop_on(host, [*names], recorded, head=bool(others))
            except BringUpError as error:  # the others are stopped all the same
                broken.append(error)
                return []

        for group in (others, [name for name in wanted if name == self._head]):
            answers, missed = self.ask(group, one)
            stopped += [name for answer in answers.values() for name in answer]
            lost |= missed
        if broken:
            raise broken[0]
        for name, error in lost.items():
            left = [s.node for s in recorded if s.host == name and (not names or s.node in names)]
            what = ", ".join(left) or "nodes of the cluster"
            lost[name] = HostUnreachableError(
                f"{error.message}\n{what} may still run on {name}",
                hint=f"{error.hint}; then run `saf-env down` again",
            )
        return sorted({*stopped}), lost

    def _stop_on(
        self, host: Host, names: list[str], recorded: Sequence[Started], *, head: bool
    ) -> list[str]:
        self._refuse_unheld(host.plan.name)
        there = self._on(host.plan.name, recorded)
        try:
            # The head of this host is its own to find.
            return host.runtime.stop(names, there, head=head and host.plan.name != self._head)
        except NoProgramError:
            return []

    def keep_logs(self, plan: ClusterPlan, names: Collection[str]) -> None:
        """Keep what the containers of nodes said where ``saf-env logs`` looks for it."""
        for index, node in enumerate(plan.nodes):
            compose = self._hosts[node.host].runtime.compose
            if node.name in names and node.kind == "container" and compose is not None:
                folder = plan.folder / str(index) / "session_latest" / "logs"
                compose.keep_logs(node.name, plan.folder / f"{node.name}.log", folder)

    def watch(self, started: Sequence[tuple[Started, NodePlan]], seconds: float) -> list[Deaths]:
        """Look whether one of the nodes ``started`` dies within ``seconds``, host by host."""
        names = dict.fromkeys(node.host for _, node in started)
        return [
            self._hosts[name].runtime.watch([s for s in started if s[1].host == name], seconds)
            for name in names
        ]

    def logs(
        self, nodes: Mapping[str, Path], read: Mapping[str, Mapping[str, int]], limit: int
    ) -> tuple[list[LogText], dict[str, dict[str, int]], dict[str, HostUnreachableError]]:
        """What the nodes' logs hold beyond what was ``read``; see :meth:`Runtimes.logs`.

        Returns:
            The new text of every log; how far it was read; and the hosts that were out of reach.
        """

        def one(host: Host) -> tuple[list[LogText], dict[str, dict[str, int]]]:
            here = {n: f for n, f in nodes.items() if self._places.get(n) == host.plan.name}
            try:
                return host.runtime.logs(here, {n: read[n] for n in here if n in read}, limit)
            except NoProgramError:
                return [], {}

        answers, lost = self.ask(self._hosts_of(nodes), one)
        texts = [text for answer, _ in answers.values() for text in answer]
        now = {name: seen for _, answer in answers.values() for name, seen in answer.items()}
        return texts, {**{k: dict(v) for k, v in read.items()}, **now}, lost

    def write_names(self, lines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Make ``lines`` the cluster's own in the hosts file of every host.

        Returns:
            The hosts where it was changed; and for others, why that could not be done.
        """

        def one(host: Host) -> tuple[bool, str]:
            try:
                return host.runtime.native.names(lines)
            except NoProgramError:  # nothing of ours was ever there
                return False, "it is not provisioned" if lines else ""

        answers, lost = self.ask(self.names, one)
        changed = [name for name, (written, _) in answers.items() if written]
        refused = {name: why for name, (_, why) in answers.items() if why}
        return changed, {**refused, **{name: error.message for name, error in lost.items()}}

    def transport(self, node: NodePlan) -> Transport:
        """Where commands run beside ``node``: its host, or the container that it is."""
        host = self._hosts[node.host]
        return host.runtime.transport(node, host.transport)

    def leave(self, origin: str) -> None:
        """Take back the claims on folders of other hosts, see :mod:`saf_env.cluster.claims`.

        Args:
            origin: of this project. Nothing of the cluster may run.
        """
        self.ask(self._others, lambda host: self._act(host, LEAVE, origin))

    def purge(self, origin: str) -> None:
        """Remove all that saf-env has on other hosts; nothing of the cluster may run there.

        Args:
            origin: of this project, see :mod:`saf_env.cluster.claims`.

        Raises:
            BringUpError: something cannot be removed, or is another cluster's.
            HostUnreachableError: a host cannot be reached.
        """

        def one(host: Host) -> None:
            done = self._act(host, PURGE, origin)
            if done.code == 3:
                raise belongs_to_another(host.plan, done.stdout.strip())
            if not done.ok:
                raise BringUpError(
                    f"{host.plan.name}: not all of {host.plan.home} can be removed: {done.tail(2)}",
                    hint="remove what is named above by hand, then run the command again",
                )
            if host.runtime.compose:
                host.runtime.compose.purge()

        _, lost = self.ask(self._others, one)
        refuse_lost(lost)

    @property
    def _others(self) -> list[str]:
        return [name for name, host in self._hosts.items() if not host.plan.here]

    def _act(self, host: Host, text: str, origin: str) -> CommandResult:
        """Run one of the texts of claims on a host."""
        self._refuse_unheld(host.plan.name)
        words = [str(host.plan.home), str(self._folder), self._folder.name, origin]
        return host.transport.run(["sh", "-c", text, "sh", *words], env=_PATH, timeout=120.0)

    def close(self) -> None:
        """End the connections to other hosts, which would be kept for a minute."""
        for host in self._hosts.values():
            if not host.plan.here:
                cast(FileTransport, host.transport).close()

    def concerned(self, names: Collection[str], recorded: Sequence[Started]) -> list[str]:
        """The hosts where nodes called ``names`` may run; all of them where none is named."""
        # A node that the cluster file has moved may still run where it was started.
        before = [r.host for r in recorded if r.node in names and r.host in self._hosts]
        return list(dict.fromkeys([*self._hosts_of(names), *before]))

    def _hosts_of(self, names: Collection[str]) -> list[str]:
        """The hosts of nodes; all where one of them is not known, or none is named."""
        places = [self._places.get(name, "") for name in names]
        if not names or not all(place in self._hosts for place in places):
            return self.names
        return list(dict.fromkeys(places))

    def _on(self, host: str, recorded: Sequence[Started]) -> list[Started]:
        """The starts on ``host``; on this machine also those from when it had another name."""
        here = self._hosts[host].plan.here
        return [r for r in recorded if r.host == host or (here and r.host not in self._hosts)]


def _stamped(found: Found, host: str) -> Found:
    leader = found.leader and replace(found.leader, host=host)
    return replace(found, host=host, leader=leader)


def refuse_lost(lost: Mapping[str, HostUnreachableError]) -> None:
    """Raise HostUnreachableError for hosts that cannot be reached, all of them in one."""
    errors = list(lost.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        lines = dict.fromkeys(line for error in errors for line in error.message.splitlines())
        raise HostUnreachableError("\n".join(lines), hint="; ".join(hints))

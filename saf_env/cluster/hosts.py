"""The hosts of one cluster, each with the way there and what runs its nodes, used as one.

Hosts are asked side by side. One that cannot be reached keeps the others from nothing: it is told
once they have done their part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from saf_env.cluster.runtimes import Deaths, LogText, Runtimes
from saf_env.errors import HostUnreachableError, NoProgramError
from saf_env.plan.model import ClusterPlan, HostPlan, NodePlan
from saf_env.runtimes.base import Found, Started
from saf_env.transports.base import Transport

AT_ONCE = 16
"""Hosts that are asked at the same time: each takes a process and a connection of this machine."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        plan: what it is.
        transport: the way there.
        runtime: runs its nodes.
        python: a Python of ours on it, by which it is looked at; on another host it is there once
            the host is provisioned.
    """

    plan: HostPlan
    transport: Transport
    runtime: Runtimes
    python: Path


class Hosts:
    """All hosts of a cluster.

    Args:
        hosts: by name.
        places: the host of every node by name, as far as the cluster file and the state tell.
        head: name of the head's host, which is stopped last.
    """

    def __init__(self, hosts: Mapping[str, Host], places: Mapping[str, str], head: str) -> None:
        self._hosts = hosts
        self._places = places
        self._head = head

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    @property
    def names(self) -> list[str]:
        """Names of all hosts."""
        return list(self._hosts)

    def ask(
        self, names: Iterable[str], question: Callable[[Host], _Answer]
    ) -> tuple[dict[str, _Answer], dict[str, HostUnreachableError]]:
        """Ask the hosts ``names`` side by side.

        Returns:
            The answers by host, and for those that could not be reached, why.

        Raises:
            SafEnvError: what ``question`` raised else, once all were asked.
        """
        wanted = list(dict.fromkeys(names))
        lost: dict[str, HostUnreachableError] = {}

        def one(name: str) -> list[_Answer]:
            try:
                return [question(self._hosts[name])]
            except HostUnreachableError as error:
                lost[name] = error
                return []

        if len(wanted) == 1:  # most clusters are of one machine, and threads take their time
            found = [one(wanted[0])]
        else:
            with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
                found = list(pool.map(one, wanted))
        return {name: x[0] for name, x in zip(wanted, found, strict=True) if x}, lost

    def find(self, recorded: Sequence[Started] = ()) -> list[Found]:
        """What runs of the cluster's nodes, on all hosts.

        Raises:
            HostUnreachableError: a host cannot be asked.
        """
        found, lost = self.look(recorded)
        for error in lost.values():
            raise error
        return found

    def look(
        self, recorded: Sequence[Started] = ()
    ) -> tuple[list[Found], dict[str, HostUnreachableError]]:
        """As :meth:`find`, with the hosts that cannot be asked, and why."""

        def one(host: Host) -> list[Found]:
            try:
                found = host.runtime.find(self._on(host.plan.name, recorded))
            except NoProgramError:  # nothing of ours was ever there
                return []
            return [_stamped(f, host.plan.name) for f in found]

        answers, lost = self.ask(self.names, one)
        return [found for answer in answers.values() for found in answer], lost

    def start(self, node: NodePlan, address: str, run: str) -> Started:
        """Start a native node; see :meth:`saf_env.runtimes.native.NativeRuntime.start`."""
        started = self._hosts[node.host].runtime.native.start(node, address, run)
        return replace(started, host=node.host)

    def start_containers(
        self, plan: ClusterPlan, nodes: Sequence[NodePlan], runs: Mapping[str, str], token: Path
    ) -> list[Started]:
        """Start container nodes; see :meth:`saf_env.runtimes.compose.ComposeRuntime.start`."""
        made = []
        for name in dict.fromkeys(node.host for node in nodes):
            here = [node for node in nodes if node.host == name]
            started = self._hosts[name].runtime.start_containers(plan, here, runs, token)
            made += [replace(one, host=name) for one in started]
        return made

    def refuse_silence(self, recorded: Sequence[Started]) -> None:
        """Raise BringUpError when nobody can tell which of the ``recorded`` containers run."""
        for name, host in self._hosts.items():
            host.runtime.refuse_silence(self._on(name, recorded))

    def stop(self, names: Collection[str], recorded: Sequence[Started]) -> list[str]:
        """Stop nodes by name, or all, and return the names of those that ran.

        The head's host comes last, so that the others' raylets can sign off.

        Raises:
            HostUnreachableError: of a host that could not be reached, once all others are done.
            BringUpError: a process could not be ended.
        """
        wanted = self._hosts_of(names)
        others = [name for name in wanted if name != self._head]
        stopped: list[str] = []
        lost: dict[str, HostUnreachableError] = {}
        for group in (others, [name for name in wanted if name == self._head]):
            answers, missed = self.ask(
                group, lambda host: self._stop_on(host, [*names], recorded, head=bool(others))
            )
            stopped += [name for answer in answers.values() for name in answer]
            lost |= missed
        for name, error in lost.items():
            left = [s.node for s in recorded if s.host == name and (not names or s.node in names)]
            raise HostUnreachableError(
                f"{error.message}\n{', '.join(left) or 'nodes of the cluster'} may still run there",
                hint=f"{error.hint}; then run `saf-env down` again",
            )
        return sorted({*stopped})

    def _stop_on(
        self, host: Host, names: list[str], recorded: Sequence[Started], *, head: bool
    ) -> list[str]:
        there = self._on(host.plan.name, recorded)
        try:
            # The head of this host is its own to find.
            return host.runtime.stop(names, there, head=head and host.plan.name != self._head)
        except NoProgramError:
            return []

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

        Raises:
            HostUnreachableError: a host cannot be reached.
        """

        def one(host: Host) -> tuple[bool, str]:
            try:
                return host.runtime.native.names(lines)
            except NoProgramError:  # nothing of ours was ever there
                return False, "it is not provisioned" if lines else ""

        answers, lost = self.ask(self.names, one)
        for error in lost.values():
            raise error
        changed = [name for name, (written, _) in answers.items() if written]
        return changed, {name: why for name, (_, why) in answers.items() if why}

    def transport(self, node: NodePlan) -> Transport:
        """Where commands run beside ``node``: its host, or the container that it is."""
        host = self._hosts[node.host]
        return host.runtime.transport(node, host.transport)

    def _hosts_of(self, names: Collection[str]) -> list[str]:
        """The hosts of nodes; all where one of them is not known, or none is named."""
        places = [self._places.get(name, "") for name in names]
        if not names or not all(place in self._hosts for place in places):
            return self.names
        return list(dict.fromkeys(places))

    def _on(self, host: str, recorded: Sequence[Started]) -> list[Started]:
        return [one for one in recorded if one.host == host]


def _stamped(found: Found, host: str) -> Found:
    leader = found.leader and replace(found.leader, host=host)
    return replace(found, host=host, leader=leader)

"""All runtimes of one cluster on one host, used as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saf_env.errors import NoProgramError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.runtimes.base import Died, Found, Started
from saf_env.runtimes.compose import ComposeRuntime, Watch, recorded_here
from saf_env.runtimes.native import NativeRuntime, waited
from saf_env.transports.base import Running, Transport


@dataclass(frozen=True)
class LogText:
    """Text of one log file of a node."""

    node: str
    file: str
    text: str


class Runtimes:
    """The native runtime, and for a cluster that may have containers that of Compose.

    Args:
        native: runs the native nodes.
        compose: runs the container nodes; None when the cluster has none.
    """

    def __init__(self, native: NativeRuntime, compose: ComposeRuntime | None = None) -> None:
        self.native = native
        self.compose = compose

    def start_containers(
        self, plan: ClusterPlan, nodes: Sequence[NodePlan], runs: Mapping[str, str]
    ) -> list[Started]:
        """See :meth:`saf_env.runtimes.compose.ComposeRuntime.start`."""
        assert self.compose is not None
        return self.compose.start(plan, nodes, runs)

    def refuse_silence(self, recorded: Sequence[Started]) -> None:
        """Raise BringUpError when nobody can tell which of the ``recorded`` containers run."""
        if self.compose and recorded_here(recorded, ()):
            self.compose.answers(recorded)

    def find(self, recorded: Sequence[Started] = ()) -> list[Found]:
        """What runs of the cluster's nodes, of whichever kind."""
        inside = self.compose.find() if self.compose else []
        try:
            return self.native.find(_native(recorded)) + inside
        except NoProgramError:  # nothing native was ever there
            if not inside:
                raise
            return inside

    def stop(
        self, names: Sequence[str], recorded: Sequence[Started] = (), *, head: bool = False
    ) -> list[str]:
        """Stop nodes by name, or all; see :meth:`saf_env.runtimes.base.Runtime.stop`.

        Containers first: their raylets sign off at a head that still lives. When they cannot be
        stopped, the native nodes are stopped all the same.
        """
        stopped: list[str] = []
        try:
            if self.compose:
                stopped += self.compose.stop(names, recorded)
        finally:
            try:
                stopped += self.native.stop(names, _native(recorded), head=head)
            except NoProgramError:  # nothing native was ever there
                if self.compose is None:
                    raise
        return sorted({*stopped})

    def watch(self, started: Sequence[tuple[Started, NodePlan]], seconds: float) -> Deaths:
        """Look whether one of the nodes ``started`` dies within ``seconds``."""
        native = [(s, node) for s, node in started if node.kind == "native"]
        inside = [s for s, node in started if node.kind == "container"]
        return Deaths(
            self.native.wait(native, None, seconds) if native else None,
            self.compose.watch(inside) if self.compose and inside else None,
        )

    def logs(
        self, nodes: Mapping[str, Path], read: Mapping[str, Mapping[str, int]], limit: int
    ) -> tuple[list[LogText], dict[str, dict[str, int]]]:
        """What the nodes' logs hold beyond what was ``read``.

        Args:
            nodes: Ray's folder of each node by name, were it native.
            read: bytes read so far by node and path.
            limit: bytes of one file that are read at once, the last ones.

        Returns:
            The new text of every log, and how far it was read.
        """
        inside = self.compose.find() if self.compose else []
        names = {f.node for f in inside} & nodes.keys()
        native = {name: folder for name, folder in nodes.items() if name not in names}
        texts, now = [], {name: dict(seen) for name, seen in read.items()}
        for name, folder in native.items():
            found, now[name] = self.native.logs({name: folder}, read.get(name, {}), limit)
            texts += [LogText(name, Path(path).name, text) for path, text in found.items()]
        for name in sorted(names):
            assert self.compose is not None
            found, now[name] = self.compose.logs(name, read.get(name, {}), limit)
            texts += [LogText(name, Path(path).name, text) for path, text in found.items()]
        return texts, now

    def transport(self, node: NodePlan, host: Transport) -> Transport:
        """Where commands run beside ``node``: its host, or the container that it is."""
        if node.kind == "native" or self.compose is None:
            return host
        return self.compose.transport(node.name)


class Deaths:
    """Nodes that are being watched.

    Args:
        native: the command that ends when a native node dies; None when there are none.
        inside: the containers that are looked at; None when there are none.
    """

    def __init__(self, native: Running | None, inside: Watch | None) -> None:
        self._native = native
        self._inside = inside

    def poll(self) -> list[Died] | None:
        """Those that have died; empty while all live; None when the time is over."""
        if self._native is not None and (seen := self._native.poll()) is not None:
            return waited(seen.stdout)[1] or None
        return self._inside.poll() if self._inside else []

    def stop(self) -> None:
        """Look no more."""
        if self._native is not None:
            self._native.stop()


def _native(recorded: Sequence[Started]) -> list[Started]:
    return [s for s in recorded if s.pid]

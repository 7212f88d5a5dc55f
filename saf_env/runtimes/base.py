"""What every runtime does with one node: start it, find it, stop it, read its logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from saf_env.plan.model import NodePlan


@dataclass(frozen=True)
class Started:
    """A node that was started; what has to be recorded to find and stop it again.

    Attributes:
        node: its name.
        run: a word that no other start has.
        pid: the process that all others of the node belong to, and its session; 0 of a container.
        started: when that process began, as the host tells it; with the pid it names one process.
            Of a container its id.
        host: where it runs.
    """

    node: str
    run: str
    pid: int
    started: str
    host: str = ""


@dataclass(frozen=True)
class Found:
    """What runs of a node right now.

    Attributes:
        node: its name.
        run: of which start.
        roles: how many processes of each role (``leader``, ``raylet``, ``gcs``, ``other``).
        leader: the process that the others belong to, as a start would have recorded it; None when
            it is gone.
        host: where it runs.
    """

    node: str
    run: str
    roles: Mapping[str, int]
    leader: Started | None
    host: str = ""

    def whole(self, role: str) -> bool:
        """Whether all is there that a node of ``role`` (head or worker) cannot do without."""
        needed = ("leader", "raylet", "gcs") if role == "head" else ("leader", "raylet")
        return all(self.roles.get(name) for name in needed)


def by_node(found: Iterable[Found]) -> dict[str, Found]:
    """One for each node by name: the most complete, where an earlier start has left something."""
    return {f.node: f for f in sorted(found, key=lambda f: len(f.roles))}


def on_own_hosts(found: Iterable[Found], places: Mapping[str, str]) -> list[Found]:
    """``found`` less what another host than a node's own saw of the same start.

    A host also sees the processes of containers on it, and one of those may be another host.

    Args:
        found: what runs, as all hosts have seen it.
        places: the host of every node by name.
    """
    seen = [(one, one.host == places.get(one.node)) for one in found]
    own = {(one.node, one.run) for one, at_home in seen if at_home}
    return [one for one, at_home in seen if at_home or (one.node, one.run) not in own]


@dataclass(frozen=True)
class Died:
    """A node that died while it was being waited for, with the end of the log that says why."""

    node: str
    tail: str


class Runtime(Protocol):
    """Runs nodes of one kind on one host."""

    def start(self, node: NodePlan, address: str, run: str) -> Started:
        """Start ``node`` and return at once; ``address`` is the GCS's, for a worker.

        Raises:
            BringUpError: it could not even be started.
        """
        ...

    def find(self, recorded: Sequence[Started]) -> list[Found]:
        """What runs of the cluster's nodes, recorded or not."""
        ...

    def stop(self, names: Sequence[str], recorded: Sequence[Started], *, head: bool) -> list[str]:
        """Stop nodes by name, all when none is named, and return the names of those that ran.

        Args:
            names: which.
            recorded: what was started.
            head: whether the head is on another host, and may hear them sign off.

        Raises:
            BringUpError: a process could not be ended.
        """
        ...

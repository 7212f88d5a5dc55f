"""What was started, under ``.saf/clusters/<cluster>/``: written atomically, believed never blindly.

The file only helps to find processes and to see what changed since the start. Whether a node runs
is asked of its host and of Ray.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from saf_env.errors import BusyError, UsageError
from saf_env.plan.model import HostPlan
from saf_env.provision.folders import write_atomically
from saf_env.runtimes.base import Started

SCHEMA = 2


@dataclass(frozen=True)
class StartedNode:
    """One node as it was started.

    Attributes:
        started: what its runtime recorded.
        attested: whether it has proven, from inside, that it is what was planned.
    """

    started: Started
    attested: bool = False


@dataclass(frozen=True)
class ClusterState:
    """All nodes of a cluster that were started and not stopped.

    Attributes:
        nodes: by name.
        hosts: those that the nodes are on, by name, as they were reached: the cluster file may not
            have them any more when their nodes are to be stopped.
        folder: name of the cluster's temp folder, its id; empty when nothing was started.
    """

    nodes: Mapping[str, StartedNode] = field(default_factory=dict)
    hosts: Mapping[str, HostPlan] = field(default_factory=dict)
    folder: str = ""

    def with_started(self, started: Started) -> ClusterState:
        """This state with one more node, or one started anew; what it had proven does not count."""
        return replace(self, nodes={**self.nodes, started.node: StartedNode(started)})

    def with_place(self, folder: str, hosts: Mapping[str, HostPlan]) -> ClusterState:
        """This state with the id of its cluster, and hosts as they are reached now."""
        return replace(self, folder=folder, hosts={**self.hosts, **hosts})

    def is_attested(self, name: str, run: str) -> bool:
        """Whether this very start of the node called ``name`` has proven what it is."""
        node = self.nodes.get(name)
        return node is not None and node.attested and node.started.run == run

    def without(self, names: Iterable[str]) -> ClusterState:
        """This state less the nodes called ``names``."""
        gone = set(names)
        return replace(self, nodes={k: v for k, v in self.nodes.items() if k not in gone})

    def with_attested(self, names: Iterable[str]) -> ClusterState:
        """This state with the nodes called ``names`` marked as attested."""
        changed = {name: replace(self.nodes[name], attested=True) for name in names}
        return replace(self, nodes={**self.nodes, **changed})

    @property
    def recorded(self) -> list[Started]:
        """What the runtimes need to find the nodes again."""
        return [node.started for node in self.nodes.values()]


def folder(home: Path, cluster: str) -> Path:
    """The folder of a cluster's state and secrets."""
    return home / ".saf" / "clusters" / cluster


def read(home: Path, cluster: str) -> ClusterState:
    """The state of ``cluster``; empty when the file is missing, damaged or of another format.

    A state that cannot be read is no reason to stop: processes are found by their marks.
    """
    try:
        value = json.loads((folder(home, cluster) / "state.json").read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA or value["cluster"] != cluster:
            return ClusterState()
        return ClusterState(
            {name: _node(name, node) for name, node in value["nodes"].items()},
            {name: _host(host) for name, host in value["hosts"].items()},
            str(value["folder"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ClusterState()


def _node(name: str, value: Mapping[str, Any]) -> StartedNode:
    started = value["started"]
    pid = int(started["pid"])
    begun, host = str(started["started"]), str(started["host"])
    return StartedNode(
        Started(name, str(started["run"]), pid, begun, host), value["attested"] is True
    )


def _host(value: Mapping[str, Any]) -> HostPlan:
    name, address, platform, ssh = (str(value[k]) for k in ("name", "address", "platform", "ssh"))
    port = None if value["port"] is None else int(value["port"])
    return HostPlan(name, address, platform, ssh, port, Path(value["home"]))


def write(home: Path, cluster: str, state: ClusterState) -> None:
    """Replace the state of ``cluster`` in one step; an empty state removes the file."""
    path = folder(home, cluster) / "state.json"
    if not state.nodes:
        path.unlink(missing_ok=True)
        return
    nodes = {
        name: {"started": vars(node.started), "attested": node.attested}
        for name, node in state.nodes.items()
    }
    used = {node.started.host for node in state.nodes.values()}
    hosts = {
        name: {**vars(host), "home": str(host.home)}
        for name, host in state.hosts.items()
        if name in used
    }
    value = {"schema": SCHEMA, "cluster": cluster, "folder": state.folder, "hosts": hosts}
    write_atomically(path, json.dumps({**value, "nodes": nodes}))


@contextmanager
def held(home: Path, cluster: str, command: str) -> Iterator[None]:
    """Hold the cluster for ``command``: commands that change it never run side by side.

    The kernel frees the lock when its holder ends, however it ends.

    Raises:
        BusyError: another command holds it; the message says which, and its pid.
    """
    place = folder(home, cluster)
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write in {place}: {error.strerror}",
            hint="saf-env keeps its state in .saf in the project folder, which must be writable",
        ) from error
    with file:  # closing it frees the lock
        _lock(file, cluster)
        file.truncate(0)
        file.write(f"{command}, pid {os.getpid()}")
        file.flush()
        yield


def _lock(file: TextIO, cluster: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read() or "it has just begun"
        raise BusyError(
            f"another saf-env command is at work on cluster {cluster}: {holder}",
            hint="wait until it has finished, or interrupt it, then try again",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot lock {file.name}: {error.strerror}",
            hint="the project folder must be on a file system that has locks (flock)",
        ) from error

"""The live cluster as the driver sees it: connected once, asked at any time."""

from __future__ import annotations

import socket
from typing import Any

from saf_env.errors import WorkloadError
from saf_env.harness.live import Live, Node
from saf_env.workloads import kernels
from saf_env.workloads.placement import by_value
from saf_env.workloads.trial import NodeLostError

CONNECT_TIMEOUT = 5.0


class Cluster:
    """A connection to a live cluster.

    Attributes:
        live: what the live file says.
        nodes: its nodes, head first.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.nodes = live.nodes

    def connect(self) -> None:
        """Connect this process as a driver.

        Raises:
            WorkloadError: nothing listens at the address, or Ray refuses the driver.
        """
        import ray

        host, _, port = self.live.address.rpartition(":")
        try:  # Ray itself would try for a minute
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
        except (OSError, ValueError) as error:
            raise WorkloadError(
                f"the head does not answer at {self.live.address}: {error}",
                hint="See `saf-env status`; `saf-env up` repairs the cluster.",
                node=self.live.head,
            ) from None
        try:
            ray.init(
                address=self.live.address,
                _node_ip_address=self.live.node_ip,
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise WorkloadError(
                f"the head answers at {self.live.address} but takes no driver: {error}",
                hint="Is the token of this cluster the one that it was started with?",
                node=self.live.head,
            ) from None
        by_value(kernels)

    def close(self) -> None:
        """Disconnect; tasks of this driver end."""
        import ray

        ray.shutdown()

    def why_lost(self, node: str) -> str:
        """Why Ray does not have the node ``node``; empty when it has."""
        alive, dead = self._rows(node)
        if len(alive) == 1:
            return ""
        if alive:
            return f"Ray has {len(alive)} nodes of this name"
        reason = next((str(row.get("DeathReasonMessage") or "") for row in dead), "")
        return f"the node is not part of the cluster{': ' if reason else ''}{reason}"

    def node_id(self, node: str) -> str:
        """Ray's id of the node.

        Raises:
            NodeLostError: Ray does not have it.
        """
        return str(self._row(node)["NodeID"])

    def cpus(self, node: str) -> int:
        """How many CPUs Ray schedules on the node, at least 1.

        Raises:
            NodeLostError: Ray does not have it.
        """
        return max(1, int(self._row(node)["Resources"].get("CPU", 0)))

    def _row(self, node: str) -> dict[str, Any]:
        if why := self.why_lost(node):
            raise NodeLostError(
                why, node=node, hint="See `saf-env logs`; `saf-env up` brings the node back."
            )
        return self._rows(node)[0][0]

    def _rows(self, node: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Ray's entries for a node: those alive, and the one that was attested if it is dead."""
        import ray

        rows: list[dict[str, Any]] = ray.nodes()
        known = {n.node_id for n in self.nodes if n.name == node}
        alive = [r for r in rows if r["Alive"] and f"saf_node_{node}" in r["Resources"]]
        return alive, [r for r in rows if not r["Alive"] and r["NodeID"] in known]


def wanted(nodes: tuple[Node, ...], conditions: dict[str, str]) -> list[Node]:
    """The nodes that meet ``conditions``: ``kind``, ``platform``, ``role``, ``host``, ``group``.

    Raises:
        ValueError: a condition has another name.
    """
    unknown = set(conditions) - {"kind", "platform", "role", "host", "group"}
    if unknown:
        raise ValueError(f"nodes cannot be chosen by {', '.join(sorted(unknown))}")
    group = conditions.get("group")
    return [
        node
        for node in nodes
        if all(getattr(node, k) == v for k, v in conditions.items() if k != "group")
        and (group is None or group in node.groups)
    ]

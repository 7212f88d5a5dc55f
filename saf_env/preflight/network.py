"""Checks of the ports: free on the host, disjoint in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Case, Check, Verdict, fail, listed, ok

REDIS_PORT = 6379


def ports_free(case: Case) -> Verdict:
    """Every port of the node's block can be listened on."""
    seen = case.fact("ports")
    if seen["address_error"]:
        return fail(
            f"{seen['address']} is not an address of this host",
            seen["address_error"],
            f"correct the address of host {case.node.host} in the cluster file",
        )
    held = [port for port in seen["held"] if not (case.running and _may_be_ours(case, port))]
    if not held:
        return ok("held by this node itself" if seen["held"] else "all ports free")
    return fail(
        "1 port is taken" if len(held) == 1 else f"{len(held)} ports are taken",
        listed([_holder(port) for port in held]),
        "end the program that holds them, or set cluster.port in the cluster file to another block",
    )


def _may_be_ours(case: Case, port: Mapping[str, Any]) -> bool:
    """Whether the holder is of this cluster; one that we may not look at is taken to be."""
    return "pid" not in port or port["mark"].startswith(case.cluster.folder.name + "/")


def _holder(port: Mapping[str, Any]) -> str:
    who = f"held by {port['command']}, pid {port['pid']}" if "pid" in port else port["error"]
    return f"{port['port']} ({port['name']}): {who}"


def _block(node: NodePlan) -> dict[int, str]:
    names = {number: name for name, number in node.ports.fixed().items()}
    workers = range(node.ports.min_worker, node.ports.max_worker + 1)
    return {**dict.fromkeys(workers, "worker"), **names}


def ports_disjoint(case: Case) -> Verdict:
    """No two uses of one port on the node's host, and GCS not on Redis's."""
    node = case.node
    if node.ports.gcs == REDIS_PORT:
        return fail(
            f"the GCS port is {REDIS_PORT}, which is Redis's",
            "",
            "set cluster.port in the cluster file to another one, such as 6380",
        )
    own = _block(node)
    expected = len(node.ports.fixed()) + node.ports.max_worker - node.ports.min_worker + 1
    if len(own) != expected:
        return fail("two uses of one port in the node's own block", "", _MORE)
    high = [f"{number} ({name})" for number, name in own.items() if not 1024 <= number <= 65535]
    if high:
        return fail("ports outside of 1024 to 65535", listed(high), _MORE)
    for other in case.cluster.nodes:
        shared = sorted(own.keys() & _block(other).keys()) if other.host == node.host else []
        if shared and other.name != node.name:
            text = listed([f"{number} ({own[number]})" for number in shared])
            return fail(f"node {other.name} on the same host has the same ports", text, _MORE)
    return ok(f"{len(own)} ports of its own")


_MORE = "set cluster.port or cluster.ports_per_node in the cluster file"

CHECKS = (
    Check(
        "ports-free",
        "node",
        "fail",
        "every port of the node can be listened on",
        ports_free,
        "Ray gets every port from the plan. Each is tried on the node's address and on all "
        "addresses; on Linux the holder is named.",
    ),
    Check(
        "ports-disjoint",
        "cluster",
        "fail",
        "no port is planned twice on a host",
        ports_disjoint,
        "Blocks of nodes on one host must not overlap, and 6379 is refused for the GCS: a Redis "
        "there would be taken for it.",
    ),
)

"""What Docker Compose is told: one service for each container node of a host. Pure.

A node in a tailnet has a second one, its sidecar, whose network it uses: its own is what others
reach by its address in the tailnet. Each service extends a template in ``compose.yaml``; what
differs from node to node is here. The file is JSON, which YAML includes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import saf_env
from saf_env.plan.command import IMAGE_ENTRY, IMAGE_ENVIRONMENT, IMAGE_PYTHON, ray_start
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.plan.names import extra_hosts
from saf_env.spec.model import TailscaleSpec, sidecar

TEMPLATE = Path(saf_env.__file__).parents[1] / "compose.yaml"

LABEL_CLUSTER = "saf-env.cluster"
LABEL_NODE = "saf-env.node"
LABEL_ROLE = "saf-env.role"
LABEL_RUN = "saf-env.run"
LABEL_SIDECAR = "saf-env.sidecar"
"""On a sidecar instead of the three above: the node that it is for."""

_SHM_ROOM = 64 * 2**20
"""Bytes of ``/dev/shm`` beyond the object store's: Ray rounds up, and others use it too."""


@dataclass(frozen=True)
class Handed:
    """What the host hands to its containers.

    Attributes:
        user: ``uid:gid`` that they run as: the owner of ``token``.
        token: file with the cluster's token, absolute, 0400 or 0600.
        auth_key: file with the key by which sidecars log in to the tailnet for the first time; None
            where there are none.
    """

    user: str
    token: Path
    auth_key: Path | None = None


def rendered(
    plan: ClusterPlan, nodes: tuple[NodePlan, ...], runs: Mapping[str, str], handed: Handed
) -> str:
    """The compose file for ``nodes``.

    Args:
        plan: their cluster.
        nodes: container nodes of one host.
        runs: of each, the word of the start it belongs to.
        handed: what the host hands to them.
    """
    services = {node.name: _service(plan, node, runs[node.name], handed) for node in nodes}
    secrets = {"token": {"file": _literal(str(handed.token))}}
    value: dict[str, Any] = {"name": plan.folder.name, "services": services, "secrets": secrets}
    if any(node.network != "host" for node in nodes):
        value["networks"] = {"cluster": {"labels": {LABEL_CLUSTER: plan.folder.name}}}
    tailnet = [node for node in nodes if node.network == "tailscale"]
    if tailnet:
        assert plan.tailscale is not None, "the plan does not say how to get into the tailnet"
        services |= {sidecar(node.name): _sidecar(plan, node, plan.tailscale) for node in tailnet}
        assert handed.auth_key is not None, "nobody has handed over the tailnet's key"
        secrets["tailscale"] = {"file": _literal(str(handed.auth_key))}
        # Made before, and not by Compose, whose `down` would remove them.
        value["volumes"] = {
            sidecar(node.name): {"name": state_volume(plan.folder.name, node), "external": True}
            for node in tailnet
        }
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def services_of(node: NodePlan) -> list[str]:
    """The services that run ``node``."""
    return [sidecar(node.name), node.name] if node.network == "tailscale" else [node.name]


def state_volume(cluster_id: str, node: NodePlan) -> str:
    """The volume with who a sidecar is in its tailnet: a new one would get another address."""
    return f"{cluster_id}-{sidecar(node.name)}"


def _service(plan: ClusterPlan, node: NodePlan, run: str, handed: Handed) -> dict[str, Any]:
    assert node.image is not None, f"{node.name} has no image"
    service = {
        "extends": {"file": _literal(str(TEMPLATE)), "service": "node"},
        "image": node.image.tag,
        "pull_policy": "never",
        "user": handed.user,
        "command": [_literal(word) for word in _command(plan, node, run)],
        "environment": {k: _literal(v) for k, v in _variables(plan.folder.name, node).items()},
        "labels": {
            LABEL_CLUSTER: plan.folder.name,
            LABEL_NODE: node.name,
            LABEL_ROLE: node.role,
            LABEL_RUN: run,
        },
        "secrets": ["token"],
        "shm_size": (node.object_store_memory or 0) + _SHM_ROOM,
        **_limits(node),
    }
    if node.network == "tailscale":
        # Hosts, ports and networks are those of the namespace, so they are the sidecar's.
        return {
            **service,
            "network_mode": f"service:{sidecar(node.name)}",
            "depends_on": {sidecar(node.name): {"condition": "service_healthy"}},
        }
    service["extra_hosts"] = _extra_hosts(plan, node)
    if node.network == "host":
        return {**service, "network_mode": "host"}
    return {
        **service,
        "networks": {"cluster": {"aliases": [node.advertise]}},
        "ports": list(published(node)),
    }


def _sidecar(plan: ClusterPlan, node: NodePlan, tailscale: TailscaleSpec) -> dict[str, Any]:
    cli = "tailscale --socket=/tmp/tailscaled.sock"
    return {
        "extends": {"file": _literal(str(TEMPLATE)), "service": "tailscale"},
        "image": tailscale.image,
        # A tailnet tells machines of one name apart; 63 is the limit of a name in DNS.
        "environment": {"TS_HOSTNAME": f"{plan.name}-{node.name}"[:63].rstrip("-")},
        "labels": {LABEL_CLUSTER: plan.folder.name, LABEL_SIDECAR: node.name},
        "secrets": ["tailscale"],
        "volumes": [
            {"type": "volume", "source": sidecar(node.name), "target": "/var/lib/tailscale"}
        ],
        "networks": ["cluster"],
        "extra_hosts": _extra_hosts(plan, node),
        "healthcheck": {
            # Connected, and with the very address that the others were told.
            "test": [
                "CMD-SHELL",
                f"{cli} status --peers=false && {cli} ip -4 | grep -Fx {node.advertise}",
            ]
        },
    }


def _extra_hosts(plan: ClusterPlan, node: NodePlan) -> list[str]:
    return [f"{name}:{address}" for name, address in extra_hosts(plan, node).items()]


def _command(plan: ClusterPlan, node: NodePlan, run: str) -> list[str]:
    wait = []
    if node.role == "worker":
        # What a head opens last before it registers; a worker that asks too early waits for long.
        wait = ["--wait", plan.head.advertise, str(plan.head.ports.dashboard_agent_grpc)]
    entry = [str(IMAGE_PYTHON), "-I", "-S", str(IMAGE_ENTRY), *wait, "--"]
    return [*entry, *ray_start(node, plan.address, run)]


def _variables(cluster_id: str, node: NodePlan) -> dict[str, str]:
    return {
        **node.variables,
        "HOME": "/tmp",
        "USER": "saf",
        "PATH": f"{IMAGE_ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "SAF_ENV_PORT": str(node.ports.node_manager),  # for the health check
        "SAF_ENV_FINGERPRINT": node.fingerprint,  # for the gate in the container's entry
        # A Linux host sees the processes of its containers: by this they are known as ours.
        "SAF_ENV_CONTAINER": f"{cluster_id}/{node.name}",
    }


def _limits(node: NodePlan) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if node.cpus is not None:
        limits["cpus"] = node.cpus
    if node.memory is not None:
        # The same with swap: a node that swaps is worse than one that says it is full.
        limits |= {"mem_limit": node.memory, "memswap_limit": node.memory}
    return limits


def published(node: NodePlan) -> Iterator[str]:
    """The ports of a bridged container, each published as the same number on its host's address."""
    ports = node.ports
    address = f"[{node.address}]" if ":" in node.address else node.address
    ranges = [
        (ports.node_manager, ports.metrics_export),
        (ports.min_worker, ports.max_worker),
    ]
    for port in (ports.gcs, ports.ray_client_server):
        if port is not None:
            ranges.append((port, port))
    for first, last in ranges:
        block = str(first) if first == last else f"{first}-{last}"
        yield f"{address}:{block}:{block}"
    if ports.dashboard is not None:
        yield f"127.0.0.1:{ports.dashboard}:{ports.dashboard}"


def _literal(text: str) -> str:
    """``text`` as Compose takes it without looking for variables in it."""
    return text.replace("$", "$$")

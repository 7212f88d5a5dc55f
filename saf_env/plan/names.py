"""Names that mean the right address wherever they are asked for.

A container is reached by its own address from its own network, and from elsewhere by its host's,
through published ports. Ray knows one address of a node only, and binds agents to it; so a node
advertises a name. Inside the container, and for its neighbours in the engine's network, the
engine's own name service resolves it to the container; in other containers ``extra_hosts`` does; on
hosts the file ``/etc/hosts``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saf_env.plan.model import ClusterPlan, NodePlan

DOMAIN = "saf"

HOST_GATEWAY = "host-gateway"
"""What Docker takes for the address by which a container reaches its host."""


def advertised_name(node: str, cluster: str) -> str:
    """The name that a node advertises where one address does not do: ``NODE.CLUSTER.saf``."""
    return f"{node}.{cluster}.{DOMAIN}"


def named(node: NodePlan) -> bool:
    """Whether a node advertises a name, and not its host's address or its own in the tailnet."""
    return node.network != "tailscale" and node.advertise != node.address


def host_names(plan: ClusterPlan) -> dict[str, str]:
    """Address by name, as every host of the cluster must resolve them; empty without containers."""
    return {node.advertise: node.address for node in plan.nodes if named(node)}


def extra_hosts(plan: ClusterPlan, node: NodePlan) -> dict[str, str]:
    """Address by name, as the container ``node`` must be told; its network knows the others.

    A native node on the container's own host is reached through the host's gateway: the address
    that it has for the host's own programs may be of the loopback interface.
    """
    if node.network == "host":  # no engine's name service knows there
        return host_names(plan)
    found = {}
    for other in plan.nodes:
        if not named(other) or other.name == node.name:
            continue
        if other.host != node.host:
            found[other.advertise] = other.address
        elif other.network == "host":
            found[other.advertise] = HOST_GATEWAY
    return found


def hosts_lines(names: Mapping[str, str], cluster_id: str) -> list[str]:
    """The lines of ``/etc/hosts`` for ``names``, each marked as the cluster's."""
    return [f"{address} {name} {marker(cluster_id)}" for name, address in sorted(names.items())]


def hosts_command(lines: Sequence[str]) -> str:
    """What a user runs who may not do it without ``sudo``."""
    text = "\\n".join(lines)
    return f"printf '{text}\\n' | sudo tee -a /etc/hosts"


def marker(cluster_id: str) -> str:
    """The comment that marks a line as ours, and of which cluster it is."""
    return f"# saf-env {cluster_id}"

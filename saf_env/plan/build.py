"""From a cluster file and its lock to the plan. Pure: what the machine is comes in as arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from saf_env.lock.model import Interpreter, Lock, Toolchain
from saf_env.plan.model import (
    ClusterPlan,
    EnvironmentPlan,
    HostPlan,
    ImagePlan,
    NodePlan,
    Ports,
)
from saf_env.plan.names import advertised_name
from saf_env.platforms import PLATFORMS, Platform
from saf_env.spec.model import ClusterSpec, HostSpec, Kind, Network, NodeSpec

LAYOUT = 2
"""Raised when environments are made in another way, so that old ones are not taken for new."""

CONTAINER_TEMP = Path("/ray")
"""Ray's temp dir in a container: a volume, so that what is spilled lies on a disk."""

CONTAINER_TOKEN = Path("/run/secrets/token")
"""Where a container has the cluster's token."""

_OBJECT_STORE = 2**30
"""Bytes of the object store of a container whose memory the cluster file leaves open."""

_SHARE = 0.3
"""Share of a container's memory that its object store gets, as Ray does it natively."""

_FIXED_PORTS = 12

NO_ENGINE = "no Docker engine answers on this machine"
"""Why a container node of this machine runs natively."""

ENGINE_ELSEWHERE = "the Docker engine in use is on another machine"
"""As :data:`NO_ENGINE`."""


def build(
    spec: ClusterSpec,
    lock: Lock,
    home: Path,
    *,
    here: str = "",
    no_containers: Mapping[str, str] | None = None,
) -> ClusterPlan:
    """The plan of ``spec``, locked by ``lock``, in the project folder ``home``.

    Args:
        spec: the cluster file.
        lock: its lock.
        home: absolute path of the project folder.
        here: the host that this machine is; default: the one without ``ssh``.
        no_containers: by host, why containers cannot run there; of all others the plan takes it
            that they can.
    """
    reasons = {
        node.name: _fallback(node, lock, (no_containers or {}).get(node.host, ""))
        for node in spec.nodes
    }
    # Who is in a network of the engine cannot reach an address of the host's loopback.
    bridged = any(
        node.kind == "container" and node.network == "bridge" and not reasons[node.name]
        for node in spec.nodes
    )
    hosts = host_plans(spec, home, here or spec.here, _platform_here(spec, lock))
    folder = temp_dir(home, spec)
    nodes = tuple(
        _node(
            spec,
            lock,
            hosts[node.host],
            node,
            index,
            folder=folder,
            fallback=reasons[node.name],
            bridged=bridged,
        )
        for index, node in enumerate(_ordered(spec))
    )
    driver = lock.toolchains["driver"]
    interpreters = {
        node.host: found
        for node in reversed(spec.nodes)
        if (found := lock.toolchains[node.name].interpreters.get(hosts[node.host].platform))
    }
    return ClusterPlan(
        name=spec.name,
        home=home,
        folder=folder,
        address=f"{_bracketed(nodes[0].advertise)}:{spec.port}",
        lock_sha256=lock.sha256,
        hosts=hosts,
        nodes=nodes,
        interpreters=interpreters,
        driver=_environment(lock, home, "driver", driver.interpreters[driver.platforms[0]]),
        tailscale=spec.tailscale,
        controller=spec.here,
    )


def _platform_here(spec: ClusterSpec, lock: Lock) -> str:
    """The platform of a host of which the cluster file does not say it: the locking machine's."""
    hosts = {host.name for host in spec.hosts.values() if host.platform is None}
    nodes = sorted((n for n in spec.nodes if n.host in hosts), key=lambda n: n.kind)
    # "native" comes last; the last platform of a node's toolchain is the one to fall back to.
    return lock.toolchains[nodes[-1].name].platforms[-1] if nodes else ""


def host_plans(spec: ClusterSpec, home: Path, here: str, platform: str) -> dict[str, HostPlan]:
    """The hosts of ``spec``.

    Args:
        spec: the cluster file.
        home: absolute path of the project folder on this machine.
        here: the host that this machine is.
        platform: of a host of which the cluster file does not say it.
    """
    found = {}
    for host in spec.hosts.values():
        address = host.address or PLATFORMS[host.platform or platform].loopback
        found[host.name] = HostPlan(
            name=host.name,
            address=address,
            platform=host.platform or platform,
            # Seen from another host of the cluster, even the one without ssh is reached so.
            ssh="" if host.name == here else host.ssh or address,
            port=host.port,
            home=home if host.name == here else remote_home(host, spec.name),
        )
    return found


def remote_home(host: HostSpec, cluster: str) -> Path:
    """The folder that saf-env has on another host, from the home of who logs in there."""
    return Path((host.path or f"~/.saf-env/{cluster}").removeprefix("~/"))


def _fallback(node: NodeSpec, lock: Lock, obstacle: str) -> str:
    """Why a container node runs natively; empty when it does not, or must not."""
    if node.kind != "container" or node.fallback is None:
        return ""
    if obstacle:
        return obstacle
    if not lock.toolchains[node.name].base_image:
        return "the lock has no base image for it (`saf-env lock` looks for one again)"
    return ""


def temp_dir(home: Path, spec: ClusterSpec) -> Path:
    """The temp folder of a cluster: short whatever the project's path, the same at every call.

    Each node's logs lie in it, and a folder by the node's number for Ray, which opens what it is
    given to everybody. The last part of the path is the cluster id that marks our processes. A
    cluster of one machine is the project folder's; one of several is the same from all of them.

    ``/tmp`` itself and not ``TMPDIR``: on macOS that is some 50 bytes long, and a UNIX socket in
    Ray's session folder must stay below 103.
    """
    head = spec.hosts[spec.head.host]
    return folder_of(
        str(home) if len(spec.hosts) == 1 else f"{head.address}:{spec.port}", spec.name
    )


def folder_of(place: str, cluster: str) -> Path:
    """The temp folder of ``cluster`` where ``place`` is the project folder, or the head's port."""
    digest = hashlib.sha256(f"{place}\0{cluster}".encode()).hexdigest()
    return Path("/tmp") / f"saf-{digest[:10]}"


def temp_dirs(spec: ClusterSpec, home: Path) -> dict[str, Path]:
    """Ray's folder of every node by name, the head's first, in the cluster's :func:`temp_dir`."""
    folder = temp_dir(home, spec)
    return {node.name: folder / str(i) for i, node in enumerate(_ordered(spec))}


def _ordered(spec: ClusterSpec) -> list[NodeSpec]:
    return sorted(spec.nodes, key=lambda node: node.role != "head")


def _node(
    spec: ClusterSpec,
    lock: Lock,
    host: HostPlan,
    node: NodeSpec,
    index: int,
    *,
    folder: Path,
    fallback: str,
    bridged: bool,
) -> NodePlan:
    toolchain = lock.toolchains[node.name]
    platform = PLATFORMS[toolchain.platforms[-1 if fallback else 0]]
    environment = _environment(
        lock, host.home, toolchain.environment, toolchain.interpreters[platform.name]
    )
    kind: Kind = "native" if fallback else node.kind
    inside = kind == "container"
    head = node.role == "head"
    first = node.port or spec.port + index * spec.ports_per_node
    ports = _ports(first, spec.ports_per_node, cpus=node.cpus if inside else None, head=head)
    network: Network = node.network if inside else "host"
    token = CONTAINER_TOKEN if inside else folder / "token"
    advertise = host.address
    if network == "tailscale":
        assert node.address is not None, f"{node.name} has no address in the tailnet"
        advertise = node.address
    elif network == "bridge" or (bridged and spec.hosts[node.host].address is None):
        advertise = advertised_name(node.name, spec.name)
    return NodePlan(
        name=node.name,
        host=node.host,
        kind=kind,
        fallback_reason=fallback,
        role=node.role,
        platform=platform.name,
        groups=node.groups,
        address=host.address,
        advertise=advertise,
        network=network,
        ports=ports,
        cpus=node.cpus,
        gpus=node.gpus,
        memory=node.memory,
        object_store_memory=_object_store(node) if inside else node.object_store_memory,
        resources=_resources(node),
        labels=_labels(node, kind, platform),
        variables=_variables(token, spec, node, platform, ports),
        environment=environment,
        image=_image(toolchain, environment, platform) if inside else None,
        fingerprint=environment.fingerprint,
        temp_dir=CONTAINER_TEMP if inside else folder / str(index),
    )


def _image(
    toolchain: Toolchain, environment: EnvironmentPlan, platform: Platform
) -> ImagePlan | None:
    """The image of a container node, or None when the lock has no base for it."""
    if not toolchain.base_image:
        return None
    from saf_env.plan.images import image_plan

    return image_plan(environment, toolchain.base_image, toolchain.uv_wheels[platform.name])


def _object_store(node: NodeSpec) -> int:
    if node.object_store_memory is not None:
        return node.object_store_memory
    return int(node.memory * _SHARE) if node.memory is not None else _OBJECT_STORE


def _environment(lock: Lock, home: Path, name: str, interpreter: Interpreter) -> EnvironmentPlan:
    from saf_env.lock.packages import packages_for

    environment = lock.environments[name]
    uv_version = next(iter(lock.toolchains.values())).uv_version
    ingredients = json.dumps(
        [LAYOUT, environment.sha256, vars(interpreter), uv_version], sort_keys=True
    )
    digest = hashlib.sha256(ingredients.encode()).hexdigest()
    key = f"{name}-{interpreter.platform}-{digest[:12]}"
    return EnvironmentPlan(
        key=key,
        lock=environment,
        interpreter=interpreter,
        packages=packages_for(environment.text, interpreter.platform, interpreter.version),
        path=home / ".saf" / "envs" / key,
        uv_version=uv_version,
    )


def _ports(first: int, size: int, *, cpus: int | None, head: bool) -> Ports:
    """A node's block: the head's own four and the eight of every node first, then the workers'.

    Args:
        first: the first port.
        size: how many the block has.
        cpus: of a container, whose ports are published one by one at some 20 ms each: its workers
            get only as many as that number of CPUs may need. None: all that are left.
        head: whether it is the head's.
    """
    last = first + size - 1
    if cpus is not None:
        last = min(last, first + _FIXED_PORTS + 4 * cpus + 12 - 1)
    return Ports(
        gcs=first if head else None,
        dashboard=first + 1 if head else None,
        dashboard_metrics=first + 2 if head else None,
        ray_client_server=first + 3 if head else None,
        node_manager=first + 4,
        object_manager=first + 5,
        runtime_env_agent=first + 6,
        dashboard_agent_listen=first + 7,
        dashboard_agent_grpc=first + 8,
        metrics_export=first + 9,
        min_worker=first + _FIXED_PORTS,
        max_worker=last,
    )


def _resources(node: NodeSpec) -> dict[str, float]:
    own = {f"saf_node_{node.name}": 1.0, **dict.fromkeys(node.groups, 1.0)}
    return dict(sorted({**node.resources, **own}.items()))


def _labels(node: NodeSpec, kind: Kind, platform: Platform) -> dict[str, str]:
    return {
        "saf-host": node.host,
        "saf-kind": kind,
        "saf-mlx": "true" if "mlx" in node.groups else "false",
        "saf-node": node.name,
        "saf-platform": platform.name,
    }


def _variables(
    token: Path, spec: ClusterSpec, node: NodeSpec, platform: Platform, ports: Ports
) -> dict[str, str]:
    """What Ray must be told by environment variables; sources in the comments."""
    variables = {
        # Explicit everywhere: a value that Ray does not know means "disabled" without a word.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray starts workers at nice 15: beside other load they got 0.14 of a plain process.
        "RAY_worker_niceness": "0",
        # A raylet sometimes waits a full second for its store with the defaults.
        "RAY_raylet_client_connect_timeout_milliseconds": "20",
        "RAY_raylet_client_num_connect_attempts": "500",
        # A driver under `uv run` would make the workers run uv, with another Python.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONNOUSERSITE": "1",
    }
    if ports.dashboard_metrics is not None:
        variables["DASHBOARD_METRIC_PORT"] = str(ports.dashboard_metrics)
    if platform.os == "macos":
        # Plasma above 2 GiB; and without the second one Ray advertises loopback on a Mac, and
        # refuses to start a worker there.
        variables["RAY_ENABLE_MAC_LARGE_OBJECT_STORE"] = "1"
        if spec.hosts[node.host].address is not None or len(spec.nodes) > 1:
            variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    return dict(sorted(variables.items()))


def agent_python(home: Path) -> Path:
    """Where another host has the Python that our files run under, once it is provisioned."""
    return home / ".saf" / "python" / "agent"


def token_path(home: Path, cluster: str) -> Path:
    """Where the cluster's token lies: 0600, made by the first ``up`` or ``check --fix``."""
    return home / ".saf" / "clusters" / cluster / "token"


def services_path(home: Path, cluster: str) -> Path:
    """Where a host has what starts the cluster's nodes after a reboot, a folder for each node."""
    return token_path(home, cluster).with_name("services")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

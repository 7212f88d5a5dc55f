"""From a cluster file and its lock to the plan. Pure: what the machine is comes in as arguments."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from saf_env.lock.model import Interpreter, Lock
from saf_env.plan.fingerprint import fingerprint
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, NodePlan, Ports
from saf_env.platforms import PLATFORMS, Platform
from saf_env.spec.model import ClusterSpec, HostSpec, NodeSpec

LAYOUT = 1
"""Raised when environments are made in another way, so that old ones are not taken for new."""

NO_CONTAINERS = "this version of saf-env does not run containers"
"""Why a container node falls back."""

_FIXED_PORTS = 12


def build(spec: ClusterSpec, lock: Lock, home: Path, *, container_engine: bool) -> ClusterPlan:
    """The plan of ``spec``, locked by ``lock``, in the project folder ``home``.

    Args:
        spec: the cluster file.
        lock: its lock.
        home: absolute path of the project folder.
        container_engine: whether container nodes can run as containers.
    """
    ordered = sorted(spec.nodes, key=lambda node: node.role != "head")
    nodes = tuple(
        _node(spec, lock, home, node, index, container_engine=container_engine)
        for index, node in enumerate(ordered)
    )
    driver = lock.toolchains["driver"]
    return ClusterPlan(
        name=spec.name,
        home=home,
        address=f"{_bracketed(nodes[0].address)}:{spec.port}",
        lock_sha256=lock.sha256,
        nodes=nodes,
        driver=_environment(lock, home, "driver", driver.interpreters[driver.platforms[0]]),
    )


def temp_dir(home: Path, cluster: str) -> Path:
    """The temp folder of a cluster: short whatever the project's path, the same at every call.

    Each node's logs lie in it, and a folder by the node's number for Ray, which opens what it is
    given to everybody. The last part of the path is the cluster id that marks our processes.

    ``/tmp`` itself and not ``TMPDIR``: on macOS that is some 50 bytes long, and a UNIX socket in
    Ray's session folder must stay below 103.
    """
    digest = hashlib.sha256(f"{home}\0{cluster}".encode()).hexdigest()
    return Path("/tmp") / f"saf-{digest[:10]}"


def _node(
    spec: ClusterSpec, lock: Lock, home: Path, node: NodeSpec, index: int, *, container_engine: bool
) -> NodePlan:
    toolchain = lock.toolchains[node.name]
    falls_back = node.kind == "container" and node.fallback == "native" and not container_engine
    platform = PLATFORMS[toolchain.platforms[-1 if falls_back else 0]]
    host = spec.hosts[node.host]
    environment = _environment(
        lock, home, toolchain.environment, toolchain.interpreters[platform.name]
    )
    first = node.port or spec.port + index * spec.ports_per_node
    ports = _ports(first, spec.ports_per_node, head=node.role == "head")
    kind = "native" if falls_back else node.kind
    return NodePlan(
        name=node.name,
        host=node.host,
        kind=kind,
        fallback_reason=NO_CONTAINERS if falls_back else "",
        role=node.role,
        platform=platform.name,
        groups=node.groups,
        address=host.address or platform.loopback,
        ports=ports,
        cpus=node.cpus,
        gpus=node.gpus,
        memory=node.memory,
        object_store_memory=node.object_store_memory,
        resources=_resources(node),
        labels=_labels(node, kind, platform),
        variables=_variables(spec, home, host, platform, ports),
        environment=environment,
        fingerprint=fingerprint(
            version=environment.interpreter.version,
            build=environment.interpreter.build,
            sha256=environment.interpreter.sha256,
            packages=environment.packages,
        ),
        temp_dir=temp_dir(home, spec.name) / str(index),
    )


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


def _ports(first: int, size: int, *, head: bool) -> Ports:
    """A node's block: the head's own four and the eight of every node first, then the workers'."""
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
        max_worker=first + size - 1,
    )


def _resources(node: NodeSpec) -> dict[str, float]:
    own = {f"saf_node_{node.name}": 1.0, **dict.fromkeys(node.groups, 1.0)}
    return dict(sorted({**node.resources, **own}.items()))


def _labels(node: NodeSpec, kind: str, platform: Platform) -> dict[str, str]:
    return {
        "saf-host": node.host,
        "saf-kind": kind,
        "saf-mlx": "true" if "mlx" in node.groups else "false",
        "saf-node": node.name,
        "saf-platform": platform.name,
    }


def _variables(
    spec: ClusterSpec, home: Path, host: HostSpec, platform: Platform, ports: Ports
) -> dict[str, str]:
    """What Ray must be told by environment variables; sources in the comments."""
    variables = {
        # Explicit everywhere: a value that Ray does not know means "disabled" without a word.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(home, spec.name)),
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
        # Plasma above 2 GiB; and without the second one Ray advertises loopback on a Mac.
        variables["RAY_ENABLE_MAC_LARGE_OBJECT_STORE"] = "1"
        if host.address is not None:
            variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    return dict(sorted(variables.items()))


def token_path(home: Path, cluster: str) -> Path:
    """Where the cluster's token lies: 0600, made by the first ``up`` or ``check --fix``."""
    return home / ".saf" / "clusters" / cluster / "token"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

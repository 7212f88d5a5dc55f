"""The command that runs one node."""

from __future__ import annotations

import json
from pathlib import Path

from saf_env.plan.model import NodePlan

IMAGE_ENVIRONMENT = Path("/opt/saf-env/env")
"""Where an image has its environment."""

IMAGE_PYTHON = IMAGE_ENVIRONMENT / "bin" / "python"

IMAGE_ENTRY = Path("/opt/saf-env/entry.py")
"""Where an image has :mod:`saf_env.runtimes.entry`, which starts its node."""


def environment_path(node: NodePlan) -> Path:
    """The environment as a node sees it: in its image, or a link on its host.

    The link is there because Ray starts workers through ``bash -c`` and ``LD_PRELOAD`` without
    quoting: the path must not have blanks, whatever the path of the project is.
    """
    if node.kind == "container":
        return IMAGE_ENVIRONMENT
    return node.temp_dir.parent / "envs" / node.environment.key


def ray_start(node: NodePlan, address: str, run: str = "") -> list[str]:
    """The command that runs one node: every port and the address explicit, nothing left to chance.

    The label ``saf-run`` tells this start from an earlier one, which the GCS takes to be alive for
    some seconds after it was killed.
    ``--block`` keeps one process for each node that ends when any of Ray's own dies, so that a node
    is either whole or gone. ``--no-monitor``: there is nothing to scale, and it saves 0.3 s.
    """
    ports = node.ports
    labels = {**node.labels, **({"saf-run": run} if run else {})}
    argv = [
        str(environment_path(node) / "bin" / "python"),
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        "--log-style=record",
        "--log-color=false",
        f"--node-ip-address={node.advertise}",
        f"--temp-dir={node.temp_dir}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_listen}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--min-worker-port={ports.min_worker}",
        f"--max-worker-port={ports.max_worker}",
        f"--resources={json.dumps(dict(node.resources), sort_keys=True)}",
        f"--labels={','.join(f'{k}={v}' for k, v in sorted(labels.items()))}",
    ]
    limits = {
        "num-cpus": node.cpus,
        "num-gpus": node.gpus,
        # A container's memory is its limit, and Ray reads that from its control group.
        "memory": None if node.kind == "container" else node.memory,
        "object-store-memory": node.object_store_memory,
    }
    argv += [f"--{name}={value}" for name, value in limits.items() if value is not None]
    if node.role == "worker":
        return [*argv, f"--address={address}"]
    return [
        *argv,
        "--head",
        "--no-monitor",
        f"--port={ports.gcs}",
        # In a bridged container nothing reaches loopback; its port is published on the host's.
        f"--dashboard-host={'0.0.0.0' if node.network == 'bridge' else '127.0.0.1'}",
        f"--dashboard-port={ports.dashboard}",
        f"--ray-client-server-port={ports.ray_client_server}",
    ]

"""A cluster of a head and one worker, up and down, beside plain Ray in the same environments."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.isolated import timed_in, unshare
from benchmarks.measure import Pair, Subject
from benchmarks.project import PLAIN_PORT, Project

NAME = "cluster"
ROUNDS = 5
SUBJECTS = (
    Subject("up", "saf-env up, attested", "ray start, twice", 0.8, "ratio"),
    Subject("up-told", "saf-env up, attested", "ray start, agent ports", 1.0, "ratio"),
    Subject("up-again", "saf-env up, up already", "ray status", 1.0, "seconds"),
    Subject("down", "saf-env down", "ray stop", 0.2, "ratio"),
)


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever; the first installs everything before."""
    project.saf_env("up")
    project.saf_env("down")
    nodes = json.loads(project.output("plan", "--json"))["nodes"]
    namespace = unshare()
    while True:
        up = project.saf_env("up")
        again = project.saf_env("up")
        down = project.saf_env("down")
        plain = _plain_ray(namespace, nodes)
        told = _plain_ray(namespace, nodes, agent_ports=True)
        yield {
            "up": (up, plain.get("up")),
            "up-told": (up, told.get("up")),
            "up-again": (again, plain.get("status")),
            "down": (down, plain.get("stop")),
        }


def _plain_ray(
    namespace: list[str] | None, nodes: list[dict[str, Any]], *, agent_ports: bool = False
) -> dict[str, float]:
    """Seconds of ``ray start`` twice, ``ray status`` and ``ray stop``; empty without a namespace.

    Ray's own defaults, but for what keeps it apart from other Rays of the machine (the head's
    ports, temp dir, home), the CPUs and the address (as in our plan), and usage statistics (off).

    Args:
        namespace: from :func:`benchmarks.isolated.unshare`.
        nodes: the head and the worker, as ``saf-env plan --json`` gives them.
        agent_ports: give each node an agent port of its own, as who knows Ray well would. By
            default the second node finds Ray's fixed one taken and tries again for some seconds.
    """
    if namespace is None:
        return {}
    head, worker = nodes
    # Short, and so in /tmp: Ray puts UNIX sockets in it.
    temp = Path(tempfile.mkdtemp(prefix="saf-bench-", dir="/tmp"))
    address = f"{head['advertise']}:{PLAIN_PORT}"
    start = ["start", "--disable-usage-stats", f"--node-ip-address={head['advertise']}"]
    start_head = [
        *start,
        "--head",
        f"--num-cpus={head['cpus']}",
        f"--temp-dir={temp}",
        f"--port={PLAIN_PORT}",
        f"--dashboard-port={PLAIN_PORT + 1}",
        f"--ray-client-server-port={PLAIN_PORT + 2}",
    ]
    start_worker = [*start, f"--address={address}", f"--num-cpus={worker['cpus']}"]
    if agent_ports:
        start_head += [f"--dashboard-agent-listen-port={PLAIN_PORT + 3}"]
        start_worker += [f"--dashboard-agent-listen-port={PLAIN_PORT + 4}"]
    commands = [
        _ray("head", head, temp, start_head),
        _ray("worker", worker, temp, start_worker),
        _ray("status", head, temp, ["status", f"--address={address}"]),
        _ray("stop", head, temp, ["stop"]),
    ]
    try:
        seconds = timed_in(namespace, commands, temp)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return {**seconds, "up": seconds["head"] + seconds["worker"]}


def _ray(name: str, node: dict[str, Any], home: Path, arguments: list[str]) -> dict[str, Any]:
    """A ``ray`` command of the node's environment."""
    binaries = f"{node['environment']['path']}/bin"
    env = {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return {"name": name, "argv": [f"{binaries}/ray", *arguments], "env": env}

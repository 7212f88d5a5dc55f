"""Clusters with container nodes, for tests on this machine's engine."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import docker as docker_sdk

from tests.hosts.conftest import docker
from tests.projects import Project

HOSTS = Path("/etc/hosts")

HEAD = """
[cluster]
name = "{name}"
port = {port}
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray[default,data]==2.60.0", "numpy"]
exclude_newer = "2026-11-10"
[environment.groups]
mlx = ["mlx; sys_platform == 'darwin'", "mlx[cpu]; sys_platform == 'linux'"]
[hosts.here]
"""
NODE = """
[[nodes]]
name = "{name}"
host = "here"
kind = "{kind}"
cpus = 1
"""
METAL = NODE.format(name="metal", kind="native") + 'groups = ["mlx"]\n'
BOX = NODE.format(name="box", kind="container") + 'memory = "4GiB"\n'
CHEST = NODE.format(name="chest", kind="container")
AS_HEAD = 'role = "head"\n'

NATIVE_HEAD = HEAD.format(name="mixed", port=24000) + METAL + AS_HEAD + BOX + CHEST
CONTAINER_HEAD = HEAD.format(name="boxed", port=24400) + METAL + BOX + AS_HEAD + CHEST


def last_json(output: str) -> dict[str, Any]:
    """The object that a driver printed; Ray may have said something after it."""
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


class Mixed(Project):
    """A project whose cluster has the nodes ``metal``, ``box`` and ``chest``."""

    @property
    def address(self) -> str:
        return str(self.plan()["address"])

    @property
    def token(self) -> str:
        return (self.state / "token").read_text(encoding="utf-8").strip()

    def container(self, node: str) -> str:
        """Id of the running container of ``node``; empty without one."""
        marks = [f"label=saf-env.cluster={self.cluster_id}", f"label=saf-env.node={node}"]
        filters = [word for mark in marks for word in ("--filter", mark)]
        return docker("ps", "--quiet", "--no-trunc", *filters)

    def volumes(self) -> set[str]:
        """The volumes of its containers."""
        show = "{{range .Mounts}}{{.Name}} {{end}}"
        containers = [self.container(n["name"]) for n in self.plan()["nodes"] if n["image"]]
        return set(docker("inspect", "--format", show, *containers).split())

    def begun(self, node: str) -> str:
        """When the engine has last started the container of ``node``."""
        return docker("inspect", "--format", "{{.State.StartedAt}}", self.container(node))

    def left(self) -> list[str]:
        """What the engine and the hosts file have of the cluster."""
        mark = f"label=saf-env.cluster={self.cluster_id}"
        found = docker("ps", "--all", "--quiet", "--filter", mark).split()
        found += docker("network", "ls", "--quiet", "--filter", mark).split()
        lines = HOSTS.read_text(encoding="utf-8").splitlines()
        return found + [line for line in lines if self.cluster_id in line]

    def driver(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Python with ``command`` as a user's driver on this machine does."""
        driver = Path(self.plan()["driver"]["path"]) / "bin" / "python"
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ["HOME"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.state / "token"),
        }
        return subprocess.run(
            [str(driver), *command],
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def places(self) -> dict[str, str]:
        """For each living node the host name that a task sees there."""
        done = self.driver("-c", PLACES, self.address)
        assert done.returncode == 0, done.stderr
        return last_json(done.stdout)

    def ends(self) -> dict[str, list[int]]:
        """Ray's reasons for the deaths of each node that has died."""
        done = self.driver("-c", ENDS, self.address)
        assert done.returncode == 0, done.stderr
        return last_json(done.stdout)


class Echo(http.server.BaseHTTPRequestHandler):
    """What this machine's engine says of itself, and nothing that could change it."""

    def do_GET(self) -> None:
        with docker_sdk.from_env().api as api:
            known = {"version": api.version, "info": api.info}
            asked = self.path.rpartition("/")[2]
            found: object = known[asked]() if asked in known else []  # lists of nothing
        absent = "/images/" in self.path
        body = json.dumps({"message": "No such image: x"} if absent else found).encode()
        self.send_response(404 if absent else 200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


CONNECT = """
import json, ray, socket, sys
address = sys.argv[1]
metal = address if address.startswith("metal.") else "metal." + address.partition(".")[2]
metal = metal.rpartition(":")[0]
ray.init(address, _node_ip_address=metal, logging_level="ERROR", log_to_driver=False)
"""
PLACES = (
    CONNECT
    + """
where = ray.remote(num_cpus=0)(lambda: socket.gethostname())
names = [n["Labels"]["saf-node"] for n in ray.nodes() if n["Alive"]]
found = [where.options(resources={"saf_node_" + name: 0.01}).remote() for name in names]
print(json.dumps(dict(zip(names, ray.get(found, timeout=60)))))
"""
)
ENDS = (
    CONNECT
    + """
found = {}
for node in ray.nodes():
    if not node["Alive"]:
        found.setdefault(node["Labels"]["saf-node"], []).append(node["DeathReason"])
print(json.dumps(found))
"""
)

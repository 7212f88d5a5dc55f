"""A cluster of several hosts: this machine and other ones of a yard."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from saf_env.plan.build import folder_of
from tests.hosts import clusters
from tests.projects import Process, Project

ROOTS = pwd.getpwnam("root").pw_dir
HEAD = clusters.HEAD.replace("[hosts.here]\n", "")


@dataclass(frozen=True)
class Several(Project):
    """A project whose hosts are this machine and those of a yard.

    Attributes:
        head: address of the head's host.
        port: of the head.
    """

    head: str = ""
    port: int = 0

    @property
    def cluster_id(self) -> str:
        return folder_of(f"{self.head}:{self.port}", self.name).name

    def processes(self) -> list[Process]:
        """As everywhere, less the connections that ssh keeps for a while."""
        return [p for p in super().processes() if not p.argv[0].startswith("ssh: ")]

    def driver(self, code: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Python as a user's driver on this machine does."""
        plan = self.plan()
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ["HOME"],
            "RAY_ADDRESS": plan["address"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.state / "token"),
        }
        return subprocess.run(
            [str(Path(plan["driver"]["path"]) / "bin" / "python"), "-c", CONNECT + code],
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


CONNECT = """
import json, os, ray, socket, time
ray.init(_node_ip_address=os.environ["RAY_ADDRESS"].rpartition(":")[0], logging_level="ERROR",
         log_to_driver=False)
"""
ALIVE = """
print(sum(node["Alive"] for node in ray.nodes()))
"""
PLACES = """
where = ray.remote(num_cpus=0)(lambda: socket.gethostname())
names = [n["Labels"]["saf-node"] for n in ray.nodes() if n["Alive"]]
found = [where.options(resources={"saf_node_" + n: 0.01}).remote() for n in names]
print(json.dumps(dict(zip(names, ray.get(found, timeout=60)))))
"""


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A refusal has its exit code, says what is wrong and where, and what to do."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr

"""A cluster of several hosts: this machine and other ones of a yard."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from saf_env.plan.build import folder_of
from tests.hosts import clusters
from tests.hosts.machines.accounts import Account
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard, yard
from tests.projects import Process, Project

ROOTS = pwd.getpwnam("root").pw_dir
HEAD = clusters.HEAD.replace("[hosts.here]\n", "")

READY = dict.fromkeys(("alpha-head", "alpha-linux", "beta-mlx", "gamma"), "ready")
THREE_HOSTS = """
[hosts.alpha]
address = "{alpha}"
platform = "linux-x86_64"
[hosts.beta]
address = "{beta}"
platform = "linux-x86_64"
ssh = "beta"
[hosts.gamma]
address = "{gamma}"
platform = "linux-x86_64"
ssh = "anna@gamma"
port = 2222
path = "~/ray node"

[[nodes]]
name = "alpha-head"
host = "alpha"
kind = "native"
role = "head"
cpus = 1
[[nodes]]
name = "alpha-linux"
host = "alpha"
kind = "container"
cpus = 1
[[nodes]]
name = "beta-mlx"
host = "beta"
kind = "native"
groups = ["mlx"]
cpus = 1
object_store_memory = "200MiB"
[[nodes]]
name = "gamma"
host = "gamma"
kind = "native"
cpus = 1
object_store_memory = "200MiB"
"""
HOME = {"beta": f"{ROOTS}/.saf-env/several", "gamma": "/home/anna b/ray node"}


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


@dataclass(frozen=True)
class Made:
    """The cluster of :data:`THREE_HOSTS`, and what it is on.

    Attributes:
        yard: where the others are.
        beta: without Python; root logs in.
        gamma: a user's account, whose shell is fish, on another port; it may not write /etc/hosts.
        project: on this machine.
    """

    yard: Yard
    beta: Machine
    gamma: Machine
    project: Several


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Made]:
    """The three hosts, and a locked project of theirs in ``folder``; nothing was ever started."""
    anna = Account("anna", home="/home/anna b", login_shell="/usr/bin/fish")
    with yard() as here:
        alpha, beta = here.network.gateway, here.machine("beta", shm="2g")
        gamma = here.machine("gamma", shm="2g", users=[anna], ports=(2222,))
        project = Several(folder, name="several", head=alpha, port=30000)
        text = HEAD.format(name="several", port=project.port)
        text += THREE_HOSTS.format(alpha=alpha, beta=beta.address, gamma=gamma.address)
        project.file.write_text(text, encoding="utf-8")
        with installed(here.ssh_config(Entry(beta), Entry(gamma, port=2222))):
            project.ok("lock")
            yield Made(here, beta, gamma, project)
            project.remove()
            assert beta.read("/etc/hosts").count("saf-env") == 0
            assert [p for p in beta.processes() if "ray" in " ".join(p.argv)] == []


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

SAID = """
say = ray.remote(num_cpus=0)(lambda: print("said by a task", flush=True))
names = [n["Labels"]["saf-node"] for n in ray.nodes() if n["Alive"]]
ray.get([say.options(resources={"saf_node_" + n: 0.01}).remote() for n in names], timeout=60)
"""

WORK = """
square = ray.remote(max_retries=5)(lambda n: (time.sleep(1), n * n)[1])
names = ["beta-mlx", "gamma"]
told = {name: [square.options(resources={"saf_node_" + name: 0.01}).remote(n) for n in range(14)]
        for name in names}
print(json.dumps({name: ray.get(given, timeout=120) for name, given in told.items()}))
"""


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A refusal has its exit code, says what is wrong and where, and what to do."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def wiped(machine: Machine) -> None:
    """As a host that saf-env never was on."""
    machine.run(["rm", "-rf", HOME[machine.name]])


def installing(machine: Machine) -> bool:
    """Whether an environment is being made there."""
    there = f"{HOME[machine.name]}/.saf/envs"
    return ".making-" in machine.run(["ls", "-a", there], check=False).stdout


def starting(machine: Machine) -> bool:
    """Whether a node has been started there."""
    return any("ray.scripts.scripts" in p.argv for p in machine.processes())


def cut(machine: Machine) -> None:
    """End all connections to its sshd."""
    for process in machine.processes():
        if process.argv[0].startswith("sshd: ") and "[listener]" not in process.argv[0]:
            os.kill(process.pid, signal.SIGKILL)


def elsewhere(project: Several, folder: Path, port: int) -> Several:
    """The same project in another folder, or, on another port, one whose cluster has its name."""
    other = replace(project, home=folder, port=port)
    text = project.file.read_text(encoding="utf-8")
    other.file.write_text(text.replace(f"port = {project.port}", f"port = {port}"), "utf-8")
    other.ok("lock")
    return other

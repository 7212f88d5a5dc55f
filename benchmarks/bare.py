"""A worker on a bare host, provisioned and joined, beside what copies, installs and starts it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import PORT, Project
from saf_env.lock.files import environment_path
from saf_env.plan.build import folder_of, token_path
from saf_env.platforms import this_platform
from saf_env.uv import cache_root, pinned_version
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import installed
from tests.hosts.machines.yard import why_not, yard

__all__ = ["NAME", "ROUNDS", "SUBJECTS", "rounds", "why_not"]

NAME = "bare hosts"
ROUNDS = 3
SUBJECTS = (
    Subject("bare-host", "saf-env up of a bare host", "copy, uv pip sync, ray start", 1.3, "ratio"),
    Subject("hosts-again", "saf-env up, 3 hosts up already", "ray status", 3.0, "seconds"),
)

_CLUSTER = "bare"
_FILE = f"{_CLUSTER}.toml"
_TEXT = """
[cluster]
name = "{name}"
port = {port}
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray[default]==2.60.0", "numpy"]
exclude_newer = "2026-11-10"
"""
_HOST = """
[hosts.{name}]
address = "{address}"
platform = "{platform}"
{ssh}
[[nodes]]
name = "{name}"
host = "{name}"
kind = "native"
cpus = 1
object_store_memory = "200MiB"
"""
_ROOTS = pwd.getpwnam("root").pw_dir
_HOME = Path(_ROOTS, ".saf-env", _CLUSTER)
_PLAIN = Path(_ROOTS, "plain")
_COPY = 'tar -c --transform "s,.*/,," -P -- "$@" | ssh beta "mkdir plain && tar -x -C plain"'


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever; the first installs everything before.

    The hosts reach no package index. What they are sent is in this machine's cache.
    """
    with yard() as here:
        alpha, beta, gamma = here.network.gateway, here.machine("beta"), here.machine("gamma")
        machines = {"alpha": alpha, "beta": beta.address, "gamma": gamma.address}
        _write(project, machines)
        with installed(here.ssh_config()):
            try:
                project.saf_env("up", "--file", _FILE)
                while True:
                    yield _round(project, beta)
            finally:
                project.saf_env("down", "--purge", "--file", _FILE)
                shutil.rmtree(project.home / ".saf" / "clusters", ignore_errors=True)
                shutil.rmtree(folder_of(f"{alpha}:{PORT}", _CLUSTER), ignore_errors=True)


def _write(project: Project, addresses: dict[str, str]) -> None:
    here = this_platform()
    assert here is not None
    text = _TEXT.format(name=_CLUSTER, port=PORT)
    for name, address in addresses.items():
        ssh = "" if name == "alpha" else f'ssh = "{name}"'
        text += _HOST.format(name=name, address=address, platform=here.name, ssh=ssh)
        text += "" if ssh else 'role = "head"\n'
    (project.home / _FILE).write_text(text, encoding="utf-8")


def _round(project: Project, beta: Machine) -> dict[str, Pair]:
    plan = json.loads(project.output("plan", "--json", "--file", _FILE))
    again = project.saf_env("up", "--file", _FILE)
    status = _ray_status(project, plan)
    project.saf_env("down", "beta", "--file", _FILE)
    _wipe(beta)
    ours = project.saf_env("up", "beta", "--file", _FILE)
    project.saf_env("down", "beta", "--file", _FILE)
    plain = _Plain(project, beta, plan)
    try:
        seconds = plain.copy() + plain.sync() + plain.start()
    finally:
        plain.remove()
        project.saf_env("up", "--file", _FILE)
    return {"bare-host": (ours, seconds), "hosts-again": (again, status)}


def _wipe(machine: Machine) -> None:
    """Leave nothing of ours on it, nor a connection to it."""
    machine.run(["sh", "-c", "rm -rf ~/.saf-env /tmp/saf-*"])
    for process in machine.processes():
        if process.argv[0].startswith("sshd: ") and "[listener]" not in process.argv[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _ray_status(project: Project, plan: dict[str, Any]) -> float:
    ray = Path(plan["driver"]["path"], "bin", "ray")
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(project.home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(project.home, _CLUSTER)),
    }
    return timed([str(ray), "status", f"--address={plan['address']}"], env=env, cwd=project.home)


@dataclass(frozen=True)
class _Plain:
    """The same worker by plain tools, in a folder of its own, beside what we have left there."""

    project: Project
    beta: Machine
    plan: dict[str, Any]

    def copy(self) -> float:
        """The same files in one stream: uv, an interpreter to unpack, and wheels."""
        own = self.project.home / ".saf"
        (interpreter,) = (own / "python").glob("packed-*.tar.gz")
        platform = self.plan["nodes"][1]["platform"]
        files = [own / "uv" / pinned_version() / platform / "uv", interpreter]
        cache = cache_root(self.project.home, self.project.env) / "wheels"
        names = self.beta.run(["ls", str(_HOME / ".saf" / "cache" / "wheels")]).stdout.split()
        files += [found for name in names for found in cache.glob(f"{platform}-*/{name}")]
        argv = ["sh", "-c", _COPY, "sh", *map(str, files)]
        sent = timed(argv, env=self.project.env, cwd=self.project.home)
        archive = str(_PLAIN / interpreter.name)
        unpack = self.beta.command(["tar", "-xzf", archive, "-C", str(_PLAIN)])
        return sent + timed(unpack, env=self.project.env, cwd=self.project.home)

    def sync(self) -> float:
        """The environment."""
        python, env = _PLAIN / "python" / "bin" / "python3", _PLAIN / "env"
        lock = self.project.home / "lockfiles" / _CLUSTER / environment_path("base")
        self.beta.put(str(_PLAIN / "lock.txt"), lock)
        self._run("uv", "venv", "--no-config", "--quiet", "--python", str(python), str(env))
        argv = ["uv", "pip", "sync", "--no-config", "--quiet", "--require-hashes", "--offline"]
        argv += ["--no-index", "--find-links", str(_PLAIN), "--compile-bytecode"]
        return self._run(*argv, "--python", str(env / "bin" / "python"), str(_PLAIN / "lock.txt"))

    def start(self) -> float:
        """Ray with its defaults, let in by the token that we have left there."""
        options = [f"--address={self.plan['address']}", f"--node-ip-address={self.beta.address}"]
        return self._run("env/bin/ray", "start", "--disable-usage-stats", "--num-cpus=1", *options)

    def remove(self) -> None:
        """End it: of all Rays, the machine sees its own only."""
        if self.beta.outside(str(_PLAIN / "env" / "bin" / "ray")).exists():
            self._run("env/bin/ray", "stop")
        self.beta.run(["rm", "-rf", str(_PLAIN), "/tmp/ray"])

    def _run(self, program: str, *arguments: str) -> float:
        env = {
            "UV_CACHE_DIR": str(_PLAIN / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_path(_HOME, _CLUSTER)),
        }
        argv = self.beta.command([str(_PLAIN / program), *arguments], env=env)
        return timed(argv, env=self.project.env, cwd=self.project.home)

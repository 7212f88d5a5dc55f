"""Projects for tests of the real thing, and what runs of their clusters.

A project is a folder with a cluster file of its own; ``saf_env`` is called as a user calls it. All
projects share the checkout's cache, so that packages are downloaded once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saf_env.plan.build import folder_of

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("SAF_ENV_CACHE") or ROOT / ".saf" / "cache").resolve()


@dataclass(frozen=True)
class Project:
    """A project folder, and ``saf-env`` called in it.

    Attributes:
        home: the folder.
        environ: variables on top of this process's.
        name: the cluster; ``<name>.toml`` is its file, ``cluster.toml`` that of ``local``.
    """

    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    name: str = "local"

    @property
    def file(self) -> Path:
        return self.home / ("cluster.toml" if self.name == "local" else f"{self.name}.toml")

    @property
    def state(self) -> Path:
        """Where the cluster's state lies."""
        return self.home / ".saf" / "clusters" / self.name

    def beside(self, name: str, port: int) -> Project:
        """Another cluster in the same folder: it uses the same environments."""
        other = Project(self.home, self.environ, name)
        other.file.write_text(cluster_file(port, name), encoding="utf-8")
        return other

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``saf-env``."""
        main = str(ROOT / "saf_env" / "__main__.py")
        return [sys.executable, "-I", main, *arguments, "--file", str(self.file)]

    def saf_env(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        timeout: float = 300,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, its output captured."""
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.home,
            env={**self.variables(), **(environ or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command and return at once."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.home,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def plan(self) -> dict[str, Any]:
        """``saf-env plan --json``."""
        return json.loads(self.ok("plan", "--json"))

    @property
    def cluster_id(self) -> str:
        """What marks the processes of this cluster: the name of its temp folder."""
        return folder_of(str(self.home.resolve()), self.name).name

    def remove(self) -> None:
        """Stop the cluster and remove what it leaves outside of the project: its logs."""
        self.ok("down")
        shutil.rmtree(Path("/tmp") / self.cluster_id, ignore_errors=True)

    def processes(self) -> list[Process]:
        """The living processes of the cluster."""
        return processes(self.cluster_id)

    def ok(self, *arguments: str, timeout: float = 300) -> str:
        """What a command printed that has to succeed."""
        done = self.saf_env(*arguments, timeout=timeout)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, str]:
        """State by node name."""
        nodes = json.loads(self.ok("status", "--json"))["nodes"]
        return {node["name"]: node["state"] for node in nodes}

    def variables(self) -> dict[str, str]:
        """The variables of the user who calls it: this process's, with the shared cache and uv."""
        uv = str(Path(sys.executable).parent)
        path = f"{uv}:{os.environ['PATH']}"
        return {**os.environ, "SAF_ENV_CACHE": str(CACHE), "PATH": path, **self.environ}


@dataclass(frozen=True)
class Process:
    """A process of a cluster.

    Attributes:
        pid: its id.
        node: its node; empty where only the command line tells that it is the cluster's.
        argv: its command line.
    """

    pid: int
    node: str
    argv: tuple[str, ...]

    def is_program(self, name: str) -> bool:
        return self.argv[0].rpartition("/")[2] == name

    @property
    def is_leader(self) -> bool:
        """Whether it is the ``ray start`` of its node."""
        return self.argv[1:4] == ("-m", "ray.scripts.scripts", "start")


def processes(cluster_id: str) -> list[Process]:
    """Everything alive whose variables, command line or session are the cluster's, from /proc.

    Ray's agents overwrite their variables when they set their title; their session tells.
    """
    everything, sessions = [], {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            session = os.getsid(int(folder.name))
        except OSError:
            continue
        if not argv[0]:  # a thread of the kernel, or a zombie
            continue
        marks = [v for v in variables if v.startswith(f"SAF_ENV_NODE={cluster_id}/")]
        ours = bool(marks) or f"/{cluster_id}/" in " ".join(argv)
        everything.append((Process(int(folder.name), "", tuple(argv)), session, ours))
        if marks:
            sessions[session] = marks[0].split("/")[1]
    return [
        replace(process, node=sessions.get(session, ""))
        for process, session, ours in everything
        if ours or session in sessions
    ]


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of ``condition``, asked again and again for ``seconds`` at most."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def cluster_file(port: int, name: str = "local") -> str:
    """The repository's own cluster file, on other ports."""
    text = (ROOT / "cluster.toml").read_text(encoding="utf-8")
    assert "port = 6380" in text
    return text.replace("port = 6380", f"port = {port}").replace('"local"', f'"{name}"')


def leaders(project: Project) -> dict[str, int]:
    """Pid of the leader by node."""
    return {p.node: p.pid for p in project.processes() if p.is_leader}

"""One healthy node, single changes to it, and what ``saf-env check`` says of each.

A case is a function that is given a :class:`Change` and makes one difference with its methods;
each of them also notes how it is undone.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from saf_env.cli.context import Context
from saf_env.cluster.gate import findings, gather
from saf_env.plan.model import ClusterPlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import unexplained
from tests.projects import Project

CLUSTER = """
[cluster]
name = "drift"
port = 27000
ports_per_node = 32
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray==2.60.0", "numpy", "six"]
exclude_newer = "2026-11-10"
[environment.groups]
more = ["idna"]
[hosts.here]
[[nodes]]
name = "head"
host = "here"
kind = "native"
role = "head"
cpus = 1
memory = "256MiB"
object_store_memory = "100MiB"
[[nodes]]
name = "worker"
host = "here"
kind = "native"
groups = ["more"]
cpus = 1
memory = "256MiB"
object_store_memory = "100MiB"
"""

PORT = 27000

Make = Callable[["Change"], "str | None"]
Facts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What one ``saf-env check --json`` said.

    Attributes:
        code: its exit code.
        findings: what is not in order, by id, level and summary: the evidence.
        error: its standard error.
    """

    code: int
    findings: Mapping[tuple[str, str, str], str]
    error: str = ""

    def beyond(self, healthy: Seen) -> dict[str, str]:
        """The evidence of what a healthy node has not, by ``<id> <level>``.

        Where nothing was judged at all: ``exit <code>``, and what was said.
        """
        if not self.findings and self.code not in (0, 4):
            return {f"exit {self.code}": self.error}
        return {
            f"{id} {level}": f"{summary} {text}"
            for (id, level, summary), text in self.findings.items()
            # A Ray of somebody else may run on the machine all the time: another one is new.
            if healthy.findings.get((id, level, summary)) != text
            and ((id, level, summary) not in healthy.findings or id == "stale-ray")
        }


def seen(found: Sequence[Finding], code: int, error: str = "") -> Seen:
    """What counts of ``found``: neither what is in order, nor what is told by another finding."""
    told = [f for f in unexplained(found) if f.level != "ok"]
    return Seen(code, {(f.id, f.level, f.summary): f.evidence for f in told}, error)


@dataclass(eq=False)
class Change:
    """One change of the healthy node, and of the call that looks at it.

    Attributes:
        project: the node's project.
        env: folder of the head's environment.
        other: the worker's.
        temp: the cluster's temp folder.
        aside: an empty folder on the disk of the project.
        undo: how it is undone.
        environ: variables on top of the user's.
        before: what the command line of the check begins with.
        arguments: its arguments.
        cwd: the folder that it is called in.
        altered: given, it changes facts that this machine cannot be made to have, and the checks
            judge them as they are then; see :meth:`judged`.
        plan: as ``altered``, for the plan.
        basis: what the plan is before that, as one of two hosts.
    """

    project: Project
    env: Path
    other: Path
    temp: Path
    aside: Path
    undo: ExitStack = field(default_factory=ExitStack)
    environ: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=lambda: ["head"])
    cwd: Path | None = None
    altered: Callable[[Facts], object] | None = None
    plan: Callable[[ClusterPlan], ClusterPlan] = lambda plan: plan
    basis: Callable[[ClusterPlan], ClusterPlan] = lambda plan: plan

    @property
    def site(self) -> Path:
        """``site-packages`` of the head's environment."""
        (found,) = self.env.glob("lib/python3.*/site-packages")
        return found

    @property
    def other_site(self) -> Path:
        """That of the worker's."""
        return self.other / self.site.relative_to(self.env)

    @property
    def tag(self) -> str:
        """What bytecode of the node's Python has in its names."""
        return self.site.parent.name.replace("python", "cpython-").replace(".", "")

    def metadata(self, package: str, *, other: bool = False) -> Path:
        """The folder of metadata of a package."""
        (found,) = (self.other_site if other else self.site).glob(f"{package}-*.dist-info")
        return found

    @property
    def python(self) -> Path:
        """The interpreter's own binary, which the environment links to."""
        return (self.env / "bin" / "python").resolve()

    @property
    def library(self) -> Path:
        """The interpreter's own standard library."""
        (found,) = (self.python.parents[1] / "lib").glob(f"{self.site.parent.name}/os.py")
        return found.parent

    @property
    def lock(self) -> Path:
        """The folder of the lock."""
        return self.project.home / "lockfiles" / "drift"

    @property
    def token(self) -> Path:
        """The token's file."""
        return self.project.state / "token"

    # Files

    def remove(self, path: Path) -> Path:
        """Take ``path`` away; returns where it is now."""
        away = self.aside / f"{len(list(self.aside.iterdir()))}-{path.name}"
        path.rename(away)
        self.undo.callback(away.rename, path)
        self.undo.callback(_delete, path)
        return away

    def keep(self, path: Path) -> None:
        """Let ``path`` be changed by others: it is put back as it is now."""
        old = self.remove(path)
        if old.is_dir():
            shutil.copytree(old, path, symlinks=True)
        else:
            shutil.copy2(old, path)

    def write(self, path: Path, data: str | bytes = "", mode: int | None = None) -> None:
        """Give ``path`` other contents, its times and its mode kept, or make it."""
        if os.path.lexists(path):
            old = self.remove(path)
            shutil.copy2(old, path)
        else:
            new = next(p for p in (*reversed(path.parents), path) if not p.exists())
            self.undo.callback(_delete, new)
            path.parent.mkdir(parents=True, exist_ok=True)
            old = path
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        if old != path:
            before = old.stat()
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if mode is not None:
            path.chmod(mode)

    def flip(self, path: Path, at: int = 100) -> None:
        """Flip one bit of a file; its size and its times stay as they were."""
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        self.write(path, bytes(data))

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replace a text that a file has."""
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    def rename(self, path: Path, name: str) -> None:
        """Give a file or folder another name."""
        new = path.with_name(name)
        path.rename(new)
        self.undo.callback(new.rename, path)

    def link(self, path: Path, target: Path) -> None:
        """Have a link in place of ``path``."""
        if os.path.lexists(path):
            self.remove(path)
        else:
            self.undo.callback(_delete, path)
        path.symlink_to(target)

    def move(self, home: Path) -> None:
        """Give the project another folder."""
        project, self.project = self.project, Project(home, self.project.environ, "drift")
        project.home.rename(home)
        self.undo.callback(home.rename, project.home)

    def mode(self, path: Path, mode: int) -> None:
        """Give a file other permissions."""
        self.undo.callback(path.chmod, path.stat().st_mode & 0o7777)
        path.chmod(mode)

    def owner(self, path: Path, uid: int) -> None:
        """Give a file to another user."""
        before = path.stat()
        self.undo.callback(os.chown, path, before.st_uid, before.st_gid)
        os.chown(path, uid, uid)

    # The machine

    def inside(self, mounts: str) -> None:
        """Run the check in a mount namespace of its own, after the shell commands ``mounts``."""
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        self.before = ["unshare", *user, "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]

    def over(self, path: Path, new: Path) -> None:
        """Run the check where ``path``, which is not the project's own, is the file ``new``."""
        self.inside(f"mount --bind '{new}' '{path}'")

    def limit(self, files: str) -> None:
        """Limit open files, ``soft:hard``."""
        self.before = ["prlimit", f"--nofile={files}"]

    def listen(self, port: int, address: str = "127.0.0.2", *, kind: str = "tcp") -> socket.socket:
        """Hold a port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.undo.callback(one.close)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        if kind == "tcp":
            one.listen()
        return one

    def start(self, name: str, mark: str = "") -> subprocess.Popen[bytes]:
        """Start a process called ``name`` that does nothing, with a mark of ours."""
        program = self.aside / name
        shutil.copy2("/bin/sleep", program)
        variables = {"SAF_ENV_NODE": mark} if mark else {}
        process = subprocess.Popen([program, "600"], env=variables)
        self.undo.callback(process.wait)
        self.undo.callback(process.kill)
        return process

    # Looking

    def look(self) -> Seen:
        """What ``saf-env check --json`` says now."""
        if self.altered is not None:
            return self.judged(self.altered, self.plan)
        arguments = ["check", "--json", *self.arguments]
        done = subprocess.run(
            [*self.before, *self.project.command(*arguments)],
            cwd=self.cwd or self.project.home,
            env={**self.project.variables(), **self.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        found = json.loads(done.stdout)["findings"] if done.stdout else []
        return seen([Finding(**one) for one in found], done.returncode, done.stderr)

    def judged(
        self,
        altered: Callable[[Facts], object] = lambda facts: None,
        plan: Callable[[ClusterPlan], ClusterPlan] = lambda plan: plan,
    ) -> Seen:
        """What the checks say of the real facts of both nodes, ``altered``, and of the ``plan``."""
        real, text, stale = _gathered(self.project.home, self.project.file)
        facts: Facts = json.loads(text)
        altered(facts)
        return seen(findings(plan(self.basis(real)), facts, stale), 0)


@functools.cache
def _gathered(home: Path, file: Path) -> tuple[ClusterPlan, str, Sequence[str]]:
    """The plan, the facts of both nodes as JSON, and why the lock is stale."""
    context = Context(home, file)
    facts = gather(context, context.plan.nodes)
    return context.plan, json.dumps(facts), context.stale()


class Table:
    """Cases: functions that make one difference, with what has to be found of it.

    Such a function may return a text that the evidence has to have.
    """

    def __init__(self) -> None:
        self.cases: list[Any] = []

    def __call__(self, *findings: str) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            self.cases.append(pytest.param(make, set(findings), id=make.__name__))
            return make

        return add


def prove(change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]) -> None:
    """Make a difference and see that it has its findings, and no others."""
    text = make(change)
    known = change.judged() if change.altered else healthy[change.arguments[:1] == ["head"]]
    new = change.look().beyond(known)
    if "stale-ray warn" not in expected:
        new.pop("stale-ray warn", None)  # it has come or gone meanwhile
    assert set(new) == expected, new
    assert not text or any(text in evidence for evidence in new.values()), new


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()

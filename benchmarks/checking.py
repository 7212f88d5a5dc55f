"""``saf-env check`` and the files behind it, beside plain hashing and a cluster of one node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import ROOT, Project
from saf_env.uv import find_uv

NAME = "check"
ROUNDS = 5
SUBJECTS = (
    Subject("check", "saf-env check NODE", "uv pip check", 0.5, "seconds"),
    Subject("check-first", "the same, the first time", "uv pip check", 1.0, "seconds"),
    Subject("check-many", "saf-env check, 16 nodes", "saf-env check, one of them", 2.0, "ratio"),
    Subject("files", "an environment's files", "sha256, one thread", 0.1, "ratio"),
    Subject("files-deep", "the same, --deep", "sha256, one thread", 0.7, "ratio"),
)

NODES = 16

_NODE = """
[[nodes]]
name = "n{number}"
host = "here"
kind = "native"
groups = ["mlx"]
cpus = 1
"""

# Seconds of the probe, and of who hashes the same files one after the other.
_FILES = """
import hashlib, json, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from saf_env import probe

def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

def plain():
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()

root = Path(sys.argv[2])
folders = json.loads((root / probe.MANIFEST).read_text())["folders"]
paths = [root / folder / name for folder, (_, _, names) in folders.items() for name in names]
paths = [path for path in paths if not path.is_symlink()]
plain()  # all of them are in memory then
works = {"plain": plain, "quick": lambda: probe.files({}), "deep": lambda: probe.files({"deep": 1})}
print(json.dumps({name: seconds(work) for name, work in works.items()}))
"""


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever; the first installs everything before."""
    more = "".join(_NODE.format(number=number) for number in range(2, NODES))
    with (project.home / "cluster.toml").open("a", encoding="utf-8") as file:
        file.write(more)
    project.saf_env("lock")
    project.saf_env("check", "--fix")
    head = json.loads(project.output("plan", "--json"))["nodes"][0]
    while True:
        one = project.saf_env("check", head["name"])
        every = project.saf_env("check")
        first = _first(project, head)
        plain = _uv_pip_check(project, head)
        files = _files(project, head)
        yield {
            "check": (one, plain),
            "check-first": (first, plain),
            "check-many": (every, one),
            "files": (files["quick"], files["plain"]),
            "files-deep": (files["deep"], files["plain"]),
        }


def _first(project: Project, node: dict[str, Any]) -> float:
    """``check`` without any bytecode of saf-env's, and with nothing in memory of what it reads."""
    empty = project.home / "bytecode"
    shutil.rmtree(empty, ignore_errors=True)
    for folder in (Path(sys.prefix), ROOT / "saf_env", Path(node["environment"]["path"])):
        _forget(folder)
    return project.saf_env("check", node["name"], PYTHONPYCACHEPREFIX=str(empty))


def _forget(folder: Path) -> None:
    """Let the system drop from memory what it keeps of files, where it can be asked to."""
    if sys.platform != "linux":
        return
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def _uv_pip_check(project: Project, node: dict[str, Any]) -> float:
    uv = find_uv(project.home, project.env)
    argv = [str(uv.binary), "pip", "check", "--python", f"{node['environment']['path']}/bin/python"]
    return timed(argv, env=uv.variables(), cwd=project.home)


def _files(project: Project, node: dict[str, Any]) -> dict[str, float]:
    """Seconds of looking at a node's files: ``quick``, ``deep``, and ``plain`` hashing."""
    root = node["environment"]["path"]
    said = subprocess.run(
        [f"{root}/bin/python", "-I", "-S", "-c", _FILES, str(ROOT), root],
        cwd=project.home,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    return dict(json.loads(said))

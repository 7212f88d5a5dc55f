"""The images of container nodes, beside the same packages by plain tools; uv's caches are warm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import PORT, Project
from saf_env.engine import Engine
from saf_env.lock.files import environment_path
from saf_env.transports.local import LocalTransport
from saf_env.uv import find_uv

NAME = "images"
ROUNDS = 3
_PLAIN = "uv pip sync, docker import"
SUBJECTS = (
    Subject("image-first", "the first image, its Python too", _PLAIN, 1.5, "ratio"),
    Subject("image", "image of another lock, caches warm", _PLAIN, 1.5, "ratio"),
)

_CLUSTER = """
[cluster]
name = "{name}"
port = {port}
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray[default]==2.60.0", "numpy"{more}]
exclude_newer = "2026-11-10"
[hosts.here]
[[nodes]]
name = "box"
host = "here"
kind = "container"
role = "head"
cpus = 1
[[nodes]]
name = "native"
host = "here"
kind = "native"
cpus = 1
"""
_FIRST, _NEXT = "first", "next"


def engine_answers() -> bool:
    """Whether there is an engine here; without one nothing of containers can be measured."""
    return Engine(LocalTransport()).answers()


def docker(project: Project, *arguments: str) -> float:
    """How long ``docker ARGUMENTS`` takes, in seconds."""
    return timed(["docker", *arguments], env=project.env, cwd=project.home)


def plan(project: Project, file: str) -> dict[str, Any]:
    """The plan of a cluster file in the project."""
    found: dict[str, Any] = json.loads(project.output("plan", "--json", "--file", file))
    return found


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of both a round, for ever; the first fills uv's caches before."""
    for name, more in ((_FIRST, ""), (_NEXT, ', "six"')):
        text = _CLUSTER.format(name=name, port=PORT, more=more)
        (project.home / f"{name}.toml").write_text(text, encoding="utf-8")
        project.saf_env("lock", "--file", f"{name}.toml")
        project.saf_env("check", "--fix", "--file", f"{name}.toml")
    try:
        while True:
            # Nothing but uv's own cache is left of earlier builds, then what one build leaves.
            docker(project, "builder", "prune", "--all", "--force", "--filter", "type=regular")
            yield {
                "image-first": (_image(project, _FIRST), _sync_and_import(project, _FIRST)),
                "image": (_image(project, _NEXT), _sync_and_import(project, _NEXT)),
            }
    finally:
        for name in (_FIRST, _NEXT):
            docker(project, "image", "rm", "--force", _tag(project, name))
            project.saf_env("down", "--file", f"{name}.toml")  # takes the names away


def _tag(project: Project, name: str) -> str:
    (tag,) = {n["image"] for n in plan(project, f"{name}.toml")["nodes"] if n["image"]}
    return str(tag)


def _image(project: Project, name: str) -> float:
    """The image made anew, above what the same command takes when the image is there."""
    fix = ("check", "--fix", "--only", "image-present", "--file", f"{name}.toml")
    docker(project, "image", "rm", "--force", _tag(project, name))
    return project.saf_env(*fix) - project.saf_env(*fix)


def _sync_and_import(project: Project, name: str) -> float:
    """The same packages in a fresh environment, and that in an image of its own."""
    uv, folder = find_uv(project.home, project.env), project.home / "plain"
    (native,) = (n for n in plan(project, f"{name}.toml")["nodes"] if n["kind"] == "native")
    python = Path(native["environment"]["path"], "bin", "python")
    shutil.rmtree(folder, ignore_errors=True)
    requirements = project.home / "lockfiles" / name / environment_path("base")

    def run(*arguments: str) -> float:
        argv = [str(uv.binary), *arguments]
        return timed(argv, env=uv.variables(), cwd=project.home)

    run("venv", "--quiet", "--python", str(python), str(folder))
    sync = ["pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "--link-mode=copy"]
    seconds = run(*sync, "--python", str(folder / "bin" / "python"), str(requirements))
    pipe = 'tar -c -C "$1" . | docker import - "$2" >&2'
    plain = "saf-env-bench:plain"
    argv = ["sh", "-c", pipe, "sh", str(folder), plain]
    seconds += timed(argv, env=project.env, cwd=project.home)
    docker(project, "image", "rm", plain)
    return seconds

"""Container nodes: their image, their start, and objects that go in and out, beside plain tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import PORT, Project
from saf_env.engine import Engine
from saf_env.lock.files import environment_path
from saf_env.plan.build import folder_of
from saf_env.transports.local import LocalTransport
from saf_env.uv import find_uv

NAME = "containers"
ROUNDS = 3
SUBJECTS = (
    Subject("image", "image of a locked environment", "uv pip sync, docker import", 1.5, "ratio"),
    Subject("containers-up", "saf-env up, 3 containers", "docker compose up --wait", 1.25, "ratio"),
    Subject("object", "200 MB, container and host", "200 MB, two native nodes", 2.0, "ratio"),
)

MEGABYTES = 200
_CLUSTER = """
[cluster]
name = "{name}"
port = {port}
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray[default]==2.60.0", "numpy"]
exclude_newer = "2026-11-10"
[hosts.here]
"""
_NODE = """
[[nodes]]
name = "{name}"
host = "here"
kind = "{kind}"
cpus = 1
"""
BOXED, MIXED = "boxed", "mixed"

# Seconds that a task on the second node waits for what lies on the first, the least of some.
_MOVE = """
import json, sys, time
import numpy, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

address, size, pairs = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
ray.init(address, _node_ip_address=address.rpartition(":")[0], logging_level="ERROR")
ids = {n["Labels"]["saf-node"]: n["NodeID"] for n in ray.nodes() if n["Alive"]}
make = ray.remote(num_cpus=0)(lambda: numpy.ones(size, dtype=numpy.uint8))
take = ray.remote(num_cpus=0)(lambda array: array.nbytes)

def seconds(source, target):
    there = take.options(scheduling_strategy=On(ids[target], soft=False))
    array = make.options(scheduling_strategy=On(ids[source], soft=False)).remote()
    ray.wait([array], fetch_local=False)
    began = time.perf_counter()
    assert ray.get(there.remote(array)) == size
    return time.perf_counter() - began

print(json.dumps([min(seconds(*pair) for _ in range(4)) for pair in pairs]))
"""


def engine_answers() -> bool:
    """Whether there is an engine here; without one nothing of this can be measured."""
    return Engine(LocalTransport()).answers()


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever; the first installs everything before."""
    _write(project, BOXED, PORT, head="container", native=0)
    _write(project, MIXED, PORT + 1000, head="native", native=1)
    try:
        for name in (BOXED, MIXED):
            _up(project, name)
            _down(project, name)
        while True:
            yield {
                "image": (_image(project), _sync_and_import(project)),
                "containers-up": _containers_up(project),
                "object": _objects(project),
            }
    finally:
        for name in (BOXED, MIXED):
            tags = {n["image"] for n in _plan(project, name)["nodes"] if n["image"]}
            _down(project, name)
            shutil.rmtree(folder_of(str(project.home.resolve()), name), ignore_errors=True)
            for tag in tags:
                _docker(project, "image", "rm", "--force", tag)


def _write(project: Project, name: str, port: int, *, head: str, native: int) -> None:
    """A cluster file: its head, ``native`` more native nodes, and containers up to three nodes."""
    kinds = [head, *["native"] * native, *["container"] * (2 - native)]
    nodes = [_NODE.format(name=f"n{i}", kind=kind) for i, kind in enumerate(kinds)]
    nodes[0] += 'role = "head"\n'
    text = _CLUSTER.format(name=name, port=port) + "".join(nodes)
    (project.home / f"{name}.toml").write_text(text, encoding="utf-8")


def _plan(project: Project, name: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(project.output("plan", "--json", "--file", f"{name}.toml"))
    return plan


def _up(project: Project, name: str) -> float:
    return project.saf_env("up", "--file", f"{name}.toml")


def _down(project: Project, name: str) -> None:
    project.saf_env("down", "--file", f"{name}.toml")


def _docker(project: Project, *arguments: str) -> float:
    return timed(["docker", *arguments], env=project.env, cwd=project.home)


def _image(project: Project) -> float:
    """The image made anew, with packages from uv's cache and nothing from the builder's."""
    tags = {n["image"] for n in _plan(project, BOXED)["nodes"]}
    for tag in tags:
        _docker(project, "image", "rm", "--force", tag)
    _docker(project, "builder", "prune", "--all", "--force", "--filter", "type=regular")
    fix = ("check", "--fix", "--only", "image-present", "--file", f"{BOXED}.toml")
    return project.saf_env(*fix)


def _sync_and_import(project: Project) -> float:
    """The same packages in a fresh environment, and that in an image of its own."""
    uv, folder = find_uv(project.home, project.env), project.home / "plain"
    python = _plan(project, BOXED)["driver"]["path"] + "/bin/python"
    shutil.rmtree(folder, ignore_errors=True)
    requirements = project.home / "lockfiles" / BOXED / environment_path("base")

    def run(*arguments: str) -> float:
        argv = [str(uv.binary), *arguments]
        return timed(argv, env=uv.variables(), cwd=project.home)

    run("venv", "--quiet", "--python", python, str(folder))
    sync = ["pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "--link-mode=copy"]
    seconds = run(*sync, "--python", str(folder / "bin" / "python"), str(requirements))
    pipe = 'tar -c -C "$1" . | docker import - "$2" >&2'
    plain = "saf-env-bench:plain"
    argv = ["sh", "-c", pipe, "sh", str(folder), plain]
    seconds += timed(argv, env=project.env, cwd=project.home)
    _docker(project, "image", "rm", plain)
    return seconds


def _containers_up(project: Project) -> Pair:
    ours = _up(project, BOXED)
    rendered = project.home / "rendered.json"
    place = project.home / ".saf" / "clusters" / BOXED
    services = json.loads((place / "compose.json").read_text(encoding="utf-8"))
    for service in services["services"].values():  # it sees at once that a node is well
        service["healthcheck"] = {"interval": "500ms"}
    rendered.write_text(json.dumps(services), encoding="utf-8")
    _down(project, BOXED)
    compose = ["compose", "--project-name", "saf-env-bench", "--file", str(rendered)]
    try:
        plain = _docker(project, *compose, "up", "--detach", "--wait")
    finally:
        _docker(project, *compose, "down", "--volumes")
    return ours, plain


def _objects(project: Project) -> Pair:
    """From the container to the host and back, and between the two native nodes and back."""
    _up(project, MIXED)
    try:
        plan = _plan(project, MIXED)
        pairs = [["n0", "n2"], ["n2", "n0"], ["n0", "n1"], ["n1", "n0"]]
        python = Path(plan["driver"]["path"]) / "bin" / "python"
        arguments = [plan["address"], str(MEGABYTES * 10**6), json.dumps(pairs)]
        head = {**plan["nodes"][0]["variables"], "PATH": "/usr/bin:/bin", "HOME": str(project.home)}
        said = subprocess.run(
            [str(python), "-c", _MOVE, *arguments],
            env=head,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        ).stdout
    finally:
        _down(project, MIXED)
    out, back, native, native_back = json.loads(said.splitlines()[-1])
    return out + back, native + native_back

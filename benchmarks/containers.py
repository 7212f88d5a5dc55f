"""Container nodes: their start, and objects that go in and out, beside plain tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import docker, plan
from benchmarks.measure import Pair, Subject
from benchmarks.project import PORT, Project
from saf_env.plan.build import folder_of

NAME = "containers"
ROUNDS = 3
SUBJECTS = (
    Subject("containers-up", "saf-env up, 3 containers", "docker compose up --wait", 1.25, "ratio"),
    Subject("containers-well", "the same", "--wait that looks twice a second", 1.25, "ratio"),
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


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever; the first installs everything before."""
    _write(project, BOXED, PORT, head="container", native=0)
    _write(project, MIXED, PORT + 1000, head="native", native=1)
    try:
        for name in (BOXED, MIXED):
            _up(project, name)
            _down(project, name)
        while True:
            ours, plain, well = _containers_up(project)
            yield {
                "containers-up": (ours, plain),
                "containers-well": (ours, well),
                "object": _objects(project),
            }
    finally:
        for name in (BOXED, MIXED):
            tags = {n["image"] for n in plan(project, f"{name}.toml")["nodes"] if n["image"]}
            _down(project, name)
            shutil.rmtree(folder_of(str(project.home.resolve()), name), ignore_errors=True)
            for tag in tags:
                docker(project, "image", "rm", "--force", tag)


def _write(project: Project, name: str, port: int, *, head: str, native: int) -> None:
    """A cluster file: its head, ``native`` more native nodes, and containers up to three nodes."""
    kinds = [head, *["native"] * native, *["container"] * (2 - native)]
    nodes = [_NODE.format(name=f"n{i}", kind=kind) for i, kind in enumerate(kinds)]
    nodes[0] += 'role = "head"\n'
    text = _CLUSTER.format(name=name, port=port) + "".join(nodes)
    (project.home / f"{name}.toml").write_text(text, encoding="utf-8")


def _up(project: Project, name: str) -> float:
    return project.saf_env("up", "--file", f"{name}.toml")


def _down(project: Project, name: str) -> None:
    project.saf_env("down", "--file", f"{name}.toml")


def _containers_up(project: Project) -> tuple[float, float, float]:
    """Ours, Compose with the same file, and Compose with one that sees sooner that nodes are well.

    By the file a container's health is looked at every ten seconds; and what Compose takes for well
    is a raylet that listens: nobody has let it in yet, or asked it who it is.
    """
    ours = _up(project, BOXED)
    rendered = project.home / ".saf" / "clusters" / BOXED / "compose.json"
    services = json.loads(rendered.read_text(encoding="utf-8"))
    same = project.home / "same.json"
    shutil.copyfile(rendered, same)
    _down(project, BOXED)
    for service in services["services"].values():
        service["healthcheck"] = {"interval": "500ms"}
    soon = project.home / "soon.json"
    soon.write_text(json.dumps(services), encoding="utf-8")
    return ours, _compose_up(project, same), _compose_up(project, soon)


def _compose_up(project: Project, file: Path) -> float:
    compose = ["compose", "--project-name", "saf-env-bench", "--file", str(file)]
    try:
        return docker(project, *compose, "up", "--detach", "--wait")
    finally:
        docker(project, *compose, "down", "--volumes")


def _objects(project: Project) -> Pair:
    """From the container to the host and back, and between the two native nodes and back."""
    _up(project, MIXED)
    try:
        planned = plan(project, f"{MIXED}.toml")
        pairs = [["n0", "n2"], ["n2", "n0"], ["n0", "n1"], ["n1", "n0"]]
        python = Path(planned["driver"]["path"]) / "bin" / "python"
        arguments = [planned["address"], str(MEGABYTES * 10**6), json.dumps(pairs)]
        variables = planned["nodes"][0]["variables"]
        head = {**variables, "PATH": "/usr/bin:/bin", "HOME": str(project.home)}
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

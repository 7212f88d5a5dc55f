"""What goes wrong with container nodes on a real engine: it is told, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.clusters import AS_HEAD, BOX, CHEST, HEAD, METAL, Mixed
from tests.hosts.conftest import docker
from tests.projects import Project, eventually

ENGINE = "/var/run/docker.sock"
BASE = HEAD.format(name="local", port=28000).replace("ray[default,data]", "ray[default]")
CLUSTER = BASE + METAL + AS_HEAD + BOX + CHEST


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """A project with all images and environments; nothing of it runs."""
    project = Mixed(tmp_path_factory.mktemp("faults"))
    project.file.write_text(CLUSTER, encoding="utf-8")
    project.ok("lock")
    project.ok("check", "--fix", timeout=900)
    images = {n["image"] for n in project.plan()["nodes"] if n["image"]}
    yield project
    project.file.write_text(CLUSTER, encoding="utf-8")
    project.remove()
    assert project.left() == []
    docker("image", "rm", *images)


@pytest.fixture
def down(project: Mixed) -> Iterator[Mixed]:
    """The cluster, nothing of it running; what a test leaves is a failure."""
    yield project
    assert project.left() == []
    assert project.processes() == []


@contextlib.contextmanager
def changed(project: Project, old: str, new: str) -> Iterator[None]:
    """The cluster file with another text, its lock fresh."""
    assert old in CLUSTER
    project.file.write_text(CLUSTER.replace(old, new), encoding="utf-8")
    try:
        project.ok("lock")
        yield
    finally:
        project.file.write_text(CLUSTER, encoding="utf-8")
        project.ok("lock")


class Line:
    """A socket to the engine that can be cut: to who uses it, the engine is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(ENGINE)
                self._open += [caller, engine]
                for pair in ((caller, engine), (engine, caller)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Nobody answers from now on."""
        self.path.unlink()
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A refusal has its exit code, says what is wrong, and what to do."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("moment", ["just started", "joining"])
def test_the_engine_goes_away_in_the_middle_of_up(down: Mixed, tmp_path: Path, moment: str) -> None:
    line = Line(tmp_path / "engine")
    cut_off = Mixed(down.home, environ={"DOCKER_HOST": f"unix://{line.path}"}, name=down.name)
    running = cut_off.start("up")
    node = "metal" if moment == "just started" else "chest"
    if moment == "joining":
        eventually(lambda: down.container(node), 60, "the containers run")
    else:
        eventually(down.processes, 60, "the head starts")
    line.cut()
    said, told = running.communicate(timeout=120)
    refused(subprocess.CompletedProcess("up", running.returncode, said, told), 6, "engine")
    assert down.processes() == [], "what is native was stopped all the same"
    down.ok("down")  # the engine is back


def test_a_port_that_is_taken(down: Mixed) -> None:
    ports = next(n["ports"] for n in down.plan()["nodes"] if n["name"] == "box")
    with socket.create_server(("127.0.0.2", ports["object_manager"])):
        done = down.saf_env("up")
        refused(done, 4, "ports-free", "box", str(ports["object_manager"]), f"pid {os.getpid()}")
        late = down.saf_env("up", "--ignore", "ports-free")  # as if it were taken after the check
        refused(late, 6, "box", str(ports["object_manager"]))
    down.ok("down")


def test_more_memory_than_the_engine_has(down: Mixed) -> None:
    with changed(down, 'memory = "4GiB"', 'memory = "9000GiB"'):
        refused(down.saf_env("up"), 4, "docker-vm", "9000.0 GiB are planned")


def test_too_little_memory_to_start(down: Mixed) -> None:
    little = 'memory = "192MiB"\nobject_store_memory = "80MiB"'
    with changed(down, 'memory = "4GiB"', little):
        done = down.saf_env("up", "--ignore", "shm")
        refused(done, 6, "box", "memory limit")
        down.ok("down")


def test_a_foreign_compose_project_of_that_name(down: Mixed) -> None:
    marks = (f"com.docker.compose.project={down.cluster_id}", "com.docker.compose.service=box")
    labels = [word for mark in marks for word in ("--label", mark)]
    foreign = docker("run", "--detach", *labels, "saf-env-base:local", "sleep", "600")
    try:
        refused(down.saf_env("up"), 6, "not this cluster's", "docker rm --force")
        down.ok("down")
        assert foreign == docker("ps", "--quiet", "--no-trunc", "--filter", f"id={foreign}")
    finally:
        docker("rm", "--force", "--volumes", foreign)


def test_a_foreign_container_beside_a_running_cluster(down: Mixed) -> None:
    down.ok("up")
    mark = f"com.docker.compose.project={down.cluster_id}"
    foreign = docker("run", "-d", "--label", mark, "saf-env-base:local", "sleep", "600")
    try:
        down.ok("down", "box")
        assert sorted(down.status().values()) == ["absent", "ready", "ready"]
        down.ok("down")
        assert foreign == docker("ps", "--quiet", "--no-trunc", "--filter", f"id={foreign}")
    finally:
        docker("rm", "--force", "--volumes", foreign)


def test_an_interrupt_takes_everything_down(down: Mixed) -> None:
    running = down.start("up")
    eventually(lambda: down.container("chest"), 60, "the containers run")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert not [c for c in ("box", "chest") if down.container(c)]
    assert down.processes() == []


# A docker whose engine, or whose Compose, is of another time.
FAKE = """#!/bin/sh
case "$*" in
info*) exec cat <<'END'
{info}
END
;;
version*) echo {engine} ;;
*) echo "docker: '$1' is not a docker command." >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("engine", "plugins", "check", "words"),
    [
        ("19.03.5", {"compose": "2.26.1", "buildx": "0.13.1"}, "docker-engine", "19.03.5"),
        ("28.2.2", {"buildx": "0.13.1"}, "docker-compose", "only Compose v1 is installed"),
        ("28.2.2", {"compose": "2.3.3", "buildx": "0.13.1"}, "docker-compose", "2.3.3"),
    ],
    ids=["old engine", "compose v1", "old compose"],
)
def test_tools_of_another_time(
    down: Mixed, tmp_path: Path, engine: str, plugins: dict[str, str], check: str, words: str
) -> None:
    info = json.loads(docker("info", "--format", "{{json .}}"))
    info["ServerVersion"] = engine
    info["ClientInfo"]["Plugins"] = [{"Name": k, "Version": v} for k, v in plugins.items()]
    for name, script in (
        ("docker", FAKE.format(info=json.dumps(info), engine=engine)),
        ("docker-compose", "#!/bin/sh\necho 1.29.2\n"),
    ):
        (tmp_path / name).write_text(script, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{down.variables()['PATH']}"
    done = down.saf_env("check", "--json", environ={"PATH": path})
    assert done.returncode == 4
    wrong = [f for f in json.loads(done.stdout)["findings"] if f["id"] == check]
    assert {f["level"] for f in wrong} == {"fail"}
    assert all(words in f["summary"] + f["evidence"] and f["hint"] for f in wrong)
    assert {f["node"] for f in wrong} == {"box", "chest"}

"""What goes wrong with container nodes on a real engine: it is told, and nothing is left."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saf_env.lock.images import LOCAL_BASE
from tests.hosts.clusters import AS_HEAD, BOX, CHEST, HEAD, METAL, Echo, Mixed
from tests.hosts.conftest import docker
from tests.hosts.several import refused
from tests.projects import Project, eventually

ENGINE = "/var/run/docker.sock"
BASE = HEAD.format(name="local", port=28000)
CLUSTER = BASE + METAL + AS_HEAD + BOX + CHEST
READY = dict.fromkeys(("metal", "box", "chest"), "ready")


@pytest.fixture(scope="module")
def project(cluster_images: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """A project with all images and environments; nothing of it runs."""
    project = Mixed(tmp_path_factory.mktemp("faults"))
    project.file.write_text(CLUSTER, encoding="utf-8")
    project.ok("lock")
    project.ok("check", "--fix", timeout=900)
    cluster_images |= {n["image"] for n in project.plan()["nodes"] if n["image"]}
    yield project
    project.file.write_text(CLUSTER, encoding="utf-8")
    project.remove()
    assert project.left() == []


@pytest.fixture
def down(project: Mixed) -> Iterator[Mixed]:
    """The cluster, nothing of it running; what a test leaves is a failure."""
    yield project
    left = project.left(), project.processes()
    if left != ([], []):
        project.saf_env("down")  # the next test is to find nothing
    assert left == ([], [])


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


@contextlib.contextmanager
def based_on(project: Project, folder: Path, line: str) -> Iterator[str]:
    """The cluster on a base image with one more line, and the tag of its image, not built yet."""
    (folder / "Dockerfile").write_text(f"FROM {LOCAL_BASE}\n{line}\n", encoding="utf-8")
    name, tag = "saf-env-faults:local", ""
    base = docker("build", "--quiet", "--tag", name, str(folder))
    try:
        with changed(project, "[python]", f'[containers]\nbase = "{name}"\n[python]'):
            (tag,) = {n["image"] for n in project.plan()["nodes"] if n["image"]}
            yield tag
    finally:
        made = docker("images", "--quiet", tag).split() if tag else []
        docker("image", "rm", "--force", base, *made)


class Line:
    """A socket to the engine that can be cut: to who uses it, the engine is gone."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._listener.listen(50)
        self._open = [self._listener]
        self._threads: list[threading.Thread] = []
        self._changing, self._is_cut = threading.Lock(), False
        self._server = threading.Thread(target=self._serve)
        self._server.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                with self._changing:
                    self._open += [caller, engine]
                    if self._is_cut:
                        return
                engine.connect(ENGINE)
                for pair in ((caller, engine), (engine, caller)):
                    self._threads.append(threading.Thread(target=self._copy, args=pair))
                    self._threads[-1].start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Nobody answers from now on."""
        with self._changing:
            self._is_cut = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._server.join()
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """Where the engine is found on the ``line``."""
    return tmp_path / "engine"


@pytest.fixture
def line(engine: Path) -> Iterator[Line]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(engine))
    line = Line(listener)
    yield line
    line.cut()


@contextlib.contextmanager
def foreign(project: Project) -> Iterator[None]:
    """A container of somebody else, whose labels are those of our project; it is left alone."""
    marks = (f"com.docker.compose.project={project.cluster_id}", "com.docker.compose.service=box")
    labels = [word for mark in marks for word in ("--label", mark)]
    container = docker("run", "--detach", *labels, LOCAL_BASE, "sleep", "600")
    try:
        yield
        assert docker("ps", "--quiet", "--no-trunc", "--filter", f"id={container}") == container
    finally:
        docker("rm", "--force", "--volumes", container)


def containers(project: Project) -> list[str]:
    """Its containers, running or not."""
    mark = f"label=saf-env.cluster={project.cluster_id}"
    return docker("ps", "--all", "--quiet", "--filter", mark).split()


def ended(running: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """How a command ended that was started."""
    said, told = running.communicate(timeout=120)
    return subprocess.CompletedProcess(running.args, running.returncode, said, told)


MOMENTS: dict[str, Callable[[Mixed], object]] = {
    "a head, no containers yet": lambda project: project.processes(),
    "containers, not started": containers,
    "nodes are joining": lambda project: project.container("chest"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_engine_goes_away_in_the_middle_of_up(
    down: Mixed, line: Line, engine: Path, moment: str
) -> None:
    cut_off = Mixed(down.home, {"DOCKER_HOST": f"unix://{engine}"}, down.name)
    running = cut_off.start("up")
    eventually(lambda: MOMENTS[moment](down), 60, moment)
    line.cut()
    refused(ended(running), 6, "engine does not answer", "box, chest", "start the engine")
    assert down.processes() == [], "what is native was stopped all the same"
    refused(cut_off.saf_env("down"), 6, "engine does not answer", "box, chest")
    if moment == "nodes are joining":  # the engine is back
        down.ok("up")
        assert down.status() == READY
    down.ok("down")


def test_the_engine_goes_away_while_the_image_is_built(
    down: Mixed, line: Line, engine: Path, tmp_path: Path
) -> None:
    cut_off = Mixed(down.home, {"DOCKER_HOST": f"unix://{engine}"}, down.name)
    with based_on(down, tmp_path, f"RUN echo {os.urandom(8).hex()} >/new") as tag:
        log = down.home / ".saf" / "images" / f"{tag.rpartition('-')[2]}.log"
        running = cut_off.start("up")
        eventually(lambda: log.exists() and "installing" in log.read_text("utf-8"), 60, "it builds")
        line.cut()
        refused(ended(running), 3, "engine", "start it")
        assert docker("images", "--quiet", tag) == ""


def test_the_disk_is_full_during_a_build(down: Mixed, tmp_path: Path) -> None:
    """The engine's, where a build has 64 MB in /dev/shm; then the one of the build's context."""
    images = str(down.home / ".saf" / "images")
    small = ["sh", "-c", 'mount -t tmpfs -o size=4m none "$0" && exec "$@"', images]
    namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    with based_on(down, tmp_path, "RUN rmdir /opt && ln -s /dev/shm /opt") as tag:
        refused(down.saf_env("up"), 3, "No space left on device", "docker system df")
        command = [*namespace, *small, *down.command("up")]
        done = subprocess.run(
            command,
            cwd=down.home,
            env=down.variables(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        refused(done, 3, "No space left on device", images, "a few GB free")
        assert docker("images", "--quiet", tag) == ""


def test_a_port_that_is_taken(down: Mixed) -> None:
    ports = next(n["ports"] for n in down.plan()["nodes"] if n["name"] == "box")
    with socket.create_server(("127.0.0.2", ports["object_manager"])):
        done = down.saf_env("up")
        refused(done, 4, "ports-free", "box", str(ports["object_manager"]), f"pid {os.getpid()}")
        late = down.saf_env("up", "--ignore", "ports-free")  # as if it were taken after the check
        refused(late, 6, "box", str(ports["object_manager"]), "tells who holds that port")


def test_more_memory_than_the_engine_has(down: Mixed) -> None:
    with changed(down, 'memory = "4GiB"', 'memory = "9000GiB"'):
        refused(down.saf_env("up"), 4, "docker-vm", "9000.0 GiB are planned")


def test_too_little_memory_to_start(down: Mixed) -> None:
    little = 'memory = "192MiB"\nobject_store_memory = "80MiB"'
    with changed(down, 'memory = "4GiB"', little):
        refused(down.saf_env("up", "--ignore", "shm"), 6, "box", "memory limit")


def test_a_foreign_compose_project_of_that_name(down: Mixed) -> None:
    with foreign(down):
        refused(down.saf_env("up"), 6, "not this cluster's", "docker rm --force")
        assert set(down.status().values()) == {"absent"}
        assert "nothing of cluster local was running" in down.ok("down")


def test_a_foreign_container_beside_a_running_cluster(down: Mixed) -> None:
    down.ok("up")
    with foreign(down):
        assert down.status() == READY
        assert "everything was up already" in down.ok("up")
        down.ok("down", "box")
        refused(down.saf_env("up"), 6, "not this cluster's", "docker rm --force")
        assert down.status() == READY | {"box": "absent"}
        down.ok("down")


def test_an_engine_of_another_machine(down: Mixed) -> None:
    there = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    refused(down.saf_env("up", environ=there), 4, "docker-engine", "does not answer")
    gateway = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    with http.server.ThreadingHTTPServer((gateway, 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://{gateway}:{server.server_port}"
        done = down.saf_env("up", environ={"DOCKER_HOST": address})
        server.shutdown()
    refused(done, 4, "docker-engine", "on another machine", address, "unset DOCKER_HOST")


@pytest.mark.parametrize("moment", [*MOMENTS][1:])
def test_an_interrupt_takes_everything_down(down: Mixed, moment: str) -> None:
    running = down.start("up")
    eventually(lambda: MOMENTS[moment](down), 60, moment)
    running.send_signal(signal.SIGINT)
    done = ended(running)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


# A docker whose engine, or whose Compose, is of another time.
FAKE = """#!/bin/sh
case "$*" in
info*) exec cat <<'END'
{info}
END
;;
version*) echo {engine} ;;
compose*) echo "docker: 'compose' is not a docker command." >&2; exit 1 ;;
*) exec {docker} "$@" ;;
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
        (
            "docker",
            FAKE.format(info=json.dumps(info), engine=engine, docker=shutil.which("docker")),
        ),
        ("docker-compose", "#!/bin/sh\necho 1.29.2\n"),
    ):
        (tmp_path / name).write_text(script, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{down.variables()['PATH']}"}
    done = down.saf_env("check", "--json", environ=environ)
    assert done.returncode == 4
    wrong = [f for f in json.loads(done.stdout)["findings"] if f["id"] == check]
    assert {f["level"] for f in wrong} == {"fail"}
    assert all(words in f["summary"] + f["evidence"] and f["hint"] for f in wrong)
    assert {f["node"] for f in wrong} == {"box", "chest"}
    refused(down.saf_env("up", environ=environ), 4, check, words, "Nothing was started")


@contextlib.contextmanager
def edited(image: str) -> Iterator[None]:
    """Another image with the name of ``image``: one file of its environment was edited."""
    edit = "import certifi.core as it; open(it.__file__, 'a').write('# edited')"
    good = docker("image", "inspect", "--format", "{{.Id}}", image)
    box = docker("create", "--user", "0", "--network", "none", image, "python", "-c", edit)
    docker("start", "--attach", box)
    bad = docker("commit", "--change", "CMD python", box, image)
    docker("rm", box)
    try:
        yield
    finally:
        docker("tag", good, image)
        docker("image", "rm", "--force", bad)


def test_a_container_that_is_made_around_the_gate_starts_no_ray(down: Mixed) -> None:
    (image,) = {n["image"] for n in down.plan()["nodes"] if n["image"]}
    down.ok("up", timeout=300)
    file = str(down.state / "compose.json")
    by_hand = ("compose", "--project-name", down.cluster_id, "--file", file, "up", "--detach")
    with edited(image):
        assert down.status() == READY, "what runs was made of the image that was attested"
        docker(*by_hand, "--no-deps", "--force-recreate", "chest")

        def refusal_told() -> str:
            text = down.ok("logs", "chest")
            return text if "is not started" in text else ""

        said = eventually(refusal_told, 60, "its entry refuses")
        seen, refusal = down.status(), down.saf_env("up")

    assert "1 of its files is changed: lib/" in said
    assert seen == {**READY, "chest": "dead"}
    assert refusal.returncode == 4
    assert "packages-intact" in refusal.stderr
    down.ok("up")
    assert down.status() == READY
    down.ok("down")

"""Clusters of native and container nodes on this machine's engine, used as users use them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.clusters import CONTAINER_HEAD, NATIVE_HEAD, Mixed
from tests.hosts.conftest import docker
from tests.projects import eventually

ENVIRONMENT = "/opt/saf-env/env/bin/python"
PROOF = Path(__file__).with_name("proof.py")

EXPECTED_TERMINATION, UNEXPECTED_TERMINATION = 1, 2  # NodeDeathInfo.Reason in Ray's common.proto
READY = dict.fromkeys(("metal", "box", "chest"), "ready")


@pytest.fixture(scope="module", params=[NATIVE_HEAD, CONTAINER_HEAD], ids=["native", "container"])
def mixed(
    request: pytest.FixtureRequest,
    cluster_images: set[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mixed]:
    """A cluster that is up, its head a native node or a container."""
    home = tmp_path_factory.mktemp("mixed") / "a $b, é"
    home.mkdir()
    (name,) = re.findall('^name = "(mixed|boxed)"', request.param, re.MULTILINE)
    project = Mixed(home, name=name)
    project.file.write_text(request.param, encoding="utf-8")
    project.ok("up", timeout=900)
    cluster_images |= {n["image"] for n in project.plan()["nodes"] if n["image"]}
    yield project
    project.remove()
    assert project.left() == []


@pytest.fixture
def up(mixed: Mixed) -> Mixed:
    """The cluster, all of it ready."""
    mixed.ok("up")
    assert mixed.status() == READY
    return mixed


# What does not depend on what the head is.
once = pytest.mark.parametrize("mixed", [NATIVE_HEAD], ids=["native"], indirect=True)


def is_of(cluster: str, pid: str) -> bool:
    """Whether the process is one of ``cluster``, in a container or not."""
    with contextlib.suppress(OSError):  # it has ended
        return cluster.encode() in Path("/proc", pid, "environ").read_bytes()
    return False


def proven(output: str) -> dict[str, str]:
    lines = [line for line in output.splitlines() if line.startswith('{"tasks"')]
    assert lines, output[-2000:]
    return json.loads(lines[-1])


def test_what_users_do_with_ray(up: Mixed) -> None:
    node_ip = next(n["advertise"] for n in up.plan()["nodes"] if n["name"] == "metal")
    done = up.driver(str(PROOF), up.address, node_ip)
    said = proven(done.stdout)
    assert set(said.values()) == {"ok"}, said


def test_a_driver_in_a_container(up: Mixed) -> None:
    box = up.container("box")
    node_ip = next(n["advertise"] for n in up.plan()["nodes"] if n["name"] == "box")
    docker("exec", "-i", box, "sh", "-c", "cat >/tmp/proof.py", data=PROOF.read_text("utf-8"))
    output = docker("exec", box, ENVIRONMENT, "/tmp/proof.py", up.address, node_ip, timeout=300)
    said = proven(output)
    assert set(said.values()) == {"ok"}, said


def test_a_job_is_submitted(up: Mixed) -> None:
    port = next(n["ports"]["dashboard"] for n in up.plan()["nodes"] if n["role"] == "head")
    address = f"http://127.0.0.1:{port}"
    names = "sorted(n['Labels']['saf-node'] for n in ray.nodes() if n['Alive'])"
    job = ["--", "python", "-c", f"import ray; ray.init(); print('on', *{names})"]
    done = up.driver("-m", "ray.scripts.scripts", "job", "submit", "--address", address, *job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\non box chest metal\n" in done.stdout
    with pytest.raises(urllib.error.HTTPError, match="401"):  # without the token
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=20)


def test_workloads_are_right_everywhere(up: Mixed) -> None:
    said = json.loads(up.ok("test", "--quick", "--json", timeout=600))
    assert said["verdict"] == "ok"
    assert {node["name"] for node in said["nodes"]} == READY.keys()


def test_check_finds_nothing_wrong_with_what_runs(up: Mixed) -> None:
    said = json.loads(up.ok("check", "--json"))
    assert said["ok"]
    assert {f["level"] for f in said["findings"]} <= {"ok", "warn"}
    warned = [f for f in said["findings"] if f["level"] == "warn" and f["id"] != "nofile"]
    # Three CPUs are planned; and clusters of other tests may run beside this one.
    cpus = len(os.sched_getaffinity(0))
    assert [f["node"] for f in warned if f["id"] == "cpu"] == (["metal"] if cpus < 3 else [])
    assert [f for f in warned if f["id"] not in ("cpu", "stale-ray")] == []
    for other in (f for f in warned if f["id"] == "stale-ray"):
        assert other["summary"] == "another Ray runs on this host"
        pids = re.findall(r"\(pid (\d+)", other["evidence"])
        assert pids
        assert not any(is_of(up.cluster_id, pid) for pid in pids), other


def test_a_second_up_does_nothing(up: Mixed) -> None:
    before = {name: up.container(name) for name in ("box", "chest")}
    assert "everything was up already" in up.ok("up")
    assert {name: up.container(name) for name in ("box", "chest")} == before


def test_containers_are_locked_down(up: Mixed) -> None:
    script = """
id -u; cat /proc/1/status | grep -E '^(CapEff|NoNewPrivs)'
touch /opt/x 2>&1; touch /x 2>&1; ls -ln /run/secrets/token; cat /proc/1/cmdline | tr '\\0' ' '
"""
    for node in ("box", "chest"):
        said = docker("exec", up.container(node), "sh", "-c", script)
        assert not said.startswith("0\n")
        assert re.search(r"CapEff:\s+0{16}\n", said)
        assert re.search(r"NoNewPrivs:\s+1\n", said)
        assert said.count("Read-only file system") == 2
        assert re.search(r"-r-{8} \d+ (\d+) ", said)
        seen = json.loads(docker("inspect", up.container(node)))[0]["HostConfig"]
        assert seen["ReadonlyRootfs"]
        assert seen["Init"]
        assert seen["CapDrop"] == ["ALL"]
        assert seen["LogConfig"]["Type"] == "local"
        assert not seen["Privileged"]
        assert seen["PidsLimit"] > 0


def test_the_token_is_nowhere_to_be_seen(up: Mixed) -> None:
    for node in ("box", "chest"):
        container = up.container(node)
        assert up.token not in docker("inspect", container)
        assert up.token not in docker("top", container, "-eo", "pid,args")
        assert up.token not in docker("logs", container)
    (image,) = {n["image"] for n in up.plan()["nodes"] if n["image"]}
    assert up.token not in docker("history", "--no-trunc", image) + docker("inspect", image)
    for file in up.state.iterdir():
        if up.token in file.read_text(encoding="utf-8"):
            assert file.name in ("token", "token.container")
            assert file.stat().st_mode & 0o077 == 0


def test_published_ports_are_reached_on_the_planned_address_only(up: Mixed) -> None:
    published = docker(
        "inspect", "--format", "{{json .NetworkSettings.Ports}}", up.container("box")
    )
    addresses = {place["HostIp"] for places in json.loads(published).values() for place in places}
    assert "127.0.0.2" in addresses
    assert addresses <= {"127.0.0.1", "127.0.0.2"}


def test_a_killed_container_comes_back(up: Mixed) -> None:
    pid = int(docker("inspect", "--format", "{{.State.Pid}}", up.container("chest")))
    died = len(up.ends().get("chest", ()))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(up.ends().get("chest", ())) > died, 60, "the head counts it as dead")
    assert UNEXPECTED_TERMINATION in up.ends()["chest"]
    eventually(lambda: up.status() == READY, 60, "it has joined again")
    assert up.places().keys() == READY.keys()


@once
def test_a_stopped_container_signs_off(up: Mixed) -> None:
    docker("stop", up.container("chest"))
    assert EXPECTED_TERMINATION in up.ends()["chest"]
    assert up.status() == READY | {"chest": "dead"}
    assert "started chest" in up.ok("up")
    assert up.places().keys() == READY.keys()


@once
def test_a_short_pause_is_ridden_out(up: Mixed) -> None:
    chest, begun = up.container("chest"), up.begun("chest")
    docker("pause", chest)
    try:
        time.sleep(10)  # less than the minute after which Ray gives a silent node up
    finally:
        docker("unpause", chest)
    assert up.places().keys() == READY.keys()
    assert up.status() == READY
    assert up.begun("chest") == begun


@once
def test_a_removed_container_is_made_again(up: Mixed) -> None:
    docker("rm", "--force", "--volumes", up.container("chest"))
    assert up.status() == READY | {"chest": "dead"}
    up.ok("up")
    assert up.places().keys() == READY.keys()


def test_a_killed_head(up: Mixed) -> None:
    """Nobody joins a new head, so one `up` makes a new cluster of all."""
    before = {name: up.begun(name) for name in ("box", "chest")}
    if up.plan()["nodes"][0]["kind"] == "container":
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", up.container("box")))
    else:
        (pid,) = (p.pid for p in up.processes() if p.is_program("gcs_server"))
    os.kill(pid, signal.SIGKILL)
    up.ok("up")
    assert up.status() == READY
    assert up.places().keys() == READY.keys()
    assert not set(before.values()) & {up.begun(name) for name in before}


@once
def test_an_image_deleted_under_a_running_cluster(up: Mixed) -> None:
    """Work goes on; what is missing is told, and made again by the next start."""
    (image,) = {n["image"] for n in up.plan()["nodes"] if n["image"]}
    docker("image", "rm", "--force", image)
    assert up.places().keys() == READY.keys()
    found = json.loads(up.saf_env("check", "--json").stdout)["findings"]
    wrong = {(f["id"], f["node"]) for f in found if f["level"] == "fail"}
    assert {("image-present", "box"), ("image-present", "chest")} <= wrong
    docker("rm", "--force", "--volumes", up.container("chest"))
    up.ok("up", timeout=600)
    assert up.status() == READY


@once
def test_logs_have_what_nodes_said(up: Mixed) -> None:
    said = up.ok("logs", "box", "--lines", "1000")
    assert re.search(r"^box raylet.out: .+", said, re.MULTILINE)


@once
def test_down_of_one_node_and_up_again(up: Mixed) -> None:
    up.ok("down", "box")
    assert sorted(up.status().values()) == ["absent", "ready", "ready"]
    up.ok("up")


def test_down_leaves_nothing(up: Mixed) -> None:
    volumes = up.volumes()
    assert volumes
    assert up.left()
    up.ok("down")
    assert up.left() == []
    assert not set(docker("volume", "ls", "--quiet").split()) & volumes
    assert up.processes() == []
    for node in up.plan()["nodes"]:
        with socket.create_server(("127.0.0.2", node["ports"]["node_manager"])):
            pass

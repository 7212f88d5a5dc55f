"""Containers on another host: its engine is reached through the user's own ssh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.clusters import last_json
from tests.hosts.machines import engine
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard
from tests.hosts.several import HEAD, PLACES, ROOTS, Several, refused
from tests.projects import eventually

READY = {"head": "ready", "beta-linux": "ready"}
FILE = """
[hosts.alpha]
address = "{alpha}"
platform = "linux-x86_64"
[hosts.beta]
address = "{beta}"
platform = "linux-x86_64"
ssh = "beta"

[[nodes]]
name = "head"
host = "alpha"
kind = "native"
role = "head"
cpus = 1
[[nodes]]
name = "beta-linux"
host = "beta"
kind = "container"
cpus = 1
memory = "2GiB"
"""


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Iterator[Machine]:
    """Root logs in; it has an engine, and no way to the outside."""
    made = machine_yard.machine("beta", shm="2g")
    with engine.running(made):
        yield made


@pytest.fixture(scope="module")
def project(
    machine_yard: Yard, beta: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    """The project on this machine; nothing of it was ever started."""
    alpha = machine_yard.network.gateway
    made = Several(tmp_path_factory.mktemp("elsewhere"), name="elsewhere", head=alpha, port=29000)
    text = HEAD.format(name=made.name, port=made.port)
    addresses = {"alpha": alpha, "beta": beta.address}
    made.file.write_text(text + FILE.format(**addresses), encoding="utf-8")
    with installed(machine_yard.ssh_config(Entry(beta))):
        made.ok("lock")
        yield made
        made.remove()


@pytest.fixture
def up(project: Several) -> Several:
    """The cluster, all of it ready."""
    project.ok("up", timeout=900)
    assert project.status() == READY
    return project


def raylets(project: Several) -> list[int]:
    """The raylets in containers, by their ids on this machine."""
    mark = f"SAF_ENV_CONTAINER={project.cluster_id}/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (folder / "cmdline").read_bytes().split(b"\0")
            if argv[0].endswith(b"/raylet") and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def test_a_host_with_an_engine_and_nothing_else_runs_a_container(
    project: Several, beta: Machine
) -> None:
    done = project.saf_env("up", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "started head, beta-linux" in done.stdout
    assert project.status() == READY
    said = project.driver(PLACES)
    assert said.returncode == 0, said.stderr
    places = last_json(said.stdout)
    assert places["head"] == socket.gethostname()
    assert places["beta-linux"] not in (socket.gethostname(), "beta")
    assert len(raylets(project)) == 1


def test_what_runs_is_checked_there(up: Several) -> None:
    said = json.loads(up.ok("check", "--json"))
    assert said["ok"], said
    of_it = {f["id"]: f["level"] for f in said["findings"] if f["node"] == "beta-linux"}
    for check in ("docker-engine", "docker-vm", "image-present", "container-user", "disk"):
        assert of_it[check] == "ok", said


def test_the_token_is_for_the_container_only(up: Several, beta: Machine) -> None:
    secret = (up.state / "token").read_text(encoding="utf-8")
    assert all(secret not in " ".join(p.argv) for p in beta.processes())
    folder = f"{ROOTS}/.saf-env/{up.name}/.saf/clusters/{up.name}"
    seen = beta.run(["stat", "-c", "%a %u", f"{folder}/token.container", f"{folder}/token"])
    assert seen.stdout == "400 10001\n600 0\n"


def test_a_second_up_does_nothing(up: Several, beta: Machine) -> None:
    before = raylets(up)
    assert "everything was up already" in up.ok("up")
    assert raylets(up) == before


def test_workloads_are_right_there(up: Several) -> None:
    said = json.loads(up.ok("test", "--quick", "--json", timeout=600))
    assert said["verdict"] == "ok"
    assert {outcome["node"] for outcome in said["outcomes"]} == READY.keys()


def test_logs_come_from_inside(up: Several) -> None:
    assert "\nbeta-linux raylet.out: " in "\n" + up.ok("logs", "beta-linux", "--lines", "1000")


def test_a_container_that_is_killed_joins_again(up: Several, beta: Machine) -> None:
    (before,) = raylets(up)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: raylets(up) not in ([], [before]), 60, "its engine starts it again")
    eventually(lambda: up.status() == READY, 60, "it has joined again")


def test_a_restarted_engine_brings_its_containers_back(up: Several, beta: Machine) -> None:
    (old,) = engine.docker(beta, "ps", "--quiet").split()
    for name in ("session_latest/sockets/x", "session_2000-01-01_1/x"):  # of earlier starts
        make = f"mkdir -p /ray/{Path(name).parent}; touch /ray/{name}"
        engine.docker(beta, "exec", old, "sh", "-c", make)
    engine.stop(beta)
    found = json.loads(up.saf_env("check", "--json").stdout)["findings"]
    assert ("docker-engine", "beta-linux", "fail") in {
        (f["id"], f["node"], f["level"]) for f in found
    }
    assert up.status()["head"] == "ready"
    engine.start(beta)
    eventually(lambda: up.status() == READY, 120, "it has joined again")
    assert engine.docker(beta, "ps", "--quiet").split() == [old], "the engine started it again"
    stale = ["-name", "x", "-o", "-name", "session_2*"]
    assert len(engine.docker(beta, "exec", old, "find", "/ray", *stale).split()) == 1
    assert up.ok("logs", "beta-linux")


def test_an_engine_that_ends_is_told(up: Several, beta: Machine) -> None:
    engine.stop(beta)
    refused(up.saf_env("down"), 6, "beta-linux may still be there")
    engine.start(beta)
    up.ok("down")
    assert raylets(up) == []


def test_purge_leaves_nothing_there(up: Several, beta: Machine, tmp_path: Path) -> None:
    assert "removed what saf-env had" in up.ok("down", "--purge")
    assert beta.run(["sh", "-c", "ls -d ~/.saf-env /tmp/saf-*"], check=False).stdout == ""
    assert engine.docker(beta, "images", "--quiet", "--filter", "label=saf-env.cluster") == ""
    assert engine.docker(beta, "ps", "--all", "--quiet") == ""

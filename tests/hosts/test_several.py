"""One cluster of several hosts: bare machines with sshd, without a way to the outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from tests.hosts.clusters import last_json
from tests.hosts.conftest import docker
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard
from tests.hosts.several import (
    ALIVE,
    HOME,
    PLACES,
    READY,
    WORK,
    Made,
    Several,
    cut,
    elsewhere,
    installing,
    refused,
    starting,
    wiped,
)
from tests.projects import eventually


@pytest.fixture(scope="module")
def machine_yard(several: Made) -> Yard:
    return several.yard


@pytest.fixture(scope="module")
def beta(several: Made) -> Machine:
    return several.beta


@pytest.fixture(scope="module")
def gamma(several: Made) -> Machine:
    return several.gamma


@pytest.fixture(scope="module")
def project(several: Made) -> Several:
    return several.project


@pytest.fixture
def up(project: Several) -> Several:
    """The cluster, all of it ready."""
    project.ok("up", timeout=600)
    assert project.status() == READY
    return project


@pytest.fixture
def down(project: Several) -> Several:
    project.ok("down")
    return project


# From nothing


def test_nothing_starts_before_every_host_knows_the_names(project: Several, gamma: Machine) -> None:
    """The first `up`: all is installed, and the one thing that takes root on gamma is told."""
    done = project.saf_env("up", timeout=900)
    refused(done, 4, "gamma: advertised-name", "Nothing was started", "sudo tee -a /etc/hosts")
    assert project.processes() == []
    address, name = done.stderr.split("printf '")[1].split()[:2]
    gamma.hosts_line(address, name)


def test_three_hosts_are_one_cluster(up: Several, beta: Machine, gamma: Machine) -> None:
    done = up.driver(PLACES)
    assert done.returncode == 0, done.stderr
    places = last_json(done.stdout)
    here = socket.gethostname()
    assert {k: v for k, v in places.items() if k != "alpha-linux"} == {
        "alpha-head": here,
        "beta-mlx": "beta",
        "gamma": "gamma",
    }
    said = json.loads(up.ok("check", "--json"))
    assert said["ok"], said
    for machine, user in ((beta, "root"), (gamma, "anna")):
        token = f"{HOME[machine.name]}/.saf/clusters/several/token"
        assert machine.run(["stat", "-c", "%a %U", token]).stdout == f"600 {user}\n"
        secret = (up.state / "token").read_text(encoding="utf-8")
        assert all(secret not in " ".join(p.argv) for p in machine.processes())


def test_a_second_up_does_nothing(up: Several) -> None:
    assert "everything was up already" in up.ok("up")


def test_workloads_are_right_on_every_host(up: Several) -> None:
    said = json.loads(up.ok("test", "--quick", "--json", timeout=600))
    assert said["verdict"] == "ok"
    assert {outcome["node"] for outcome in said["outcomes"]} == READY.keys()


def test_logs_come_from_every_host(up: Several) -> None:
    said = up.ok("logs", "--lines", "1000")
    assert all(f"\n{node} raylet.out: " in said for node in READY)


# What goes wrong while it runs


def test_a_node_that_is_killed_is_started_again(up: Several, beta: Machine) -> None:
    (raylet,) = [p for p in beta.processes() if p.argv[0].endswith("/raylet")]
    os.kill(raylet.pid, signal.SIGKILL)
    eventually(lambda: up.status()["beta-mlx"] == "dead", 30, "the head has noticed")
    assert "started beta-mlx" in up.ok("up")
    assert up.status() == READY


def test_a_host_that_loses_its_power(up: Several, beta: Machine) -> None:
    """Its files stay, all its processes are gone: no state file is believed."""
    beta.kill_all()
    refused(up.saf_env("up"), 5, "beta: ")
    beta.boot()
    eventually(lambda: up.status()["beta-mlx"] == "dead", 90, "the head has noticed")
    assert "started beta-mlx" in up.ok("up")
    assert up.status() == READY


def test_a_cable_that_is_pulled_and_a_container_that_sleeps(up: Several, beta: Machine) -> None:
    """Ray gives both up after a minute. Who only slept joins again by itself."""
    marks = (f"saf-env.cluster={up.cluster_id}", "saf-env.node=alpha-linux")
    sleeper = docker("ps", "--quiet", *(w for m in marks for w in ("--filter", f"label={m}")))
    begun = docker("inspect", "--format", "{{.State.StartedAt}}", sleeper)
    beta.cable(False)
    try:
        refused(up.saf_env("up"), 5, "beta: ")
        up.ok("down", "gamma")
        partial = up.saf_env("up", "--partial")
        assert partial.returncode == 0, partial.stdout + partial.stderr
        assert "without beta-mlx: beta: " in partial.stderr
        assert "started gamma" in partial.stdout
        docker("pause", sleeper)
        dead = READY | {"beta-mlx": "dead", "alpha-linux": "dead"}
        eventually(lambda: up.driver(ALIVE).stdout == "2\n", 120, "the head has given them up")
        assert up.status() == dead
        assert "not seen: beta: " in up.ok("status")
        docker("unpause", sleeper)
        eventually(lambda: up.status()["alpha-linux"] == "ready", 120, "it has joined again")
        assert docker("inspect", "--format", "{{.State.StartedAt}}", sleeper) != begun
    finally:
        beta.cable(True)
        if docker("inspect", "--format", "{{.State.Paused}}", sleeper) == "true":
            docker("unpause", sleeper)
    assert "started beta-mlx" in up.ok("up")
    assert up.status() == READY


def test_a_cable_that_is_out_for_ten_seconds(up: Several, beta: Machine) -> None:
    """Work goes on, or is done again, where it was; its results are right."""
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(up.driver, WORK)
        time.sleep(5)
        beta.cable(False)
        time.sleep(10)
        beta.cable(True)
        done = working.result()
    assert done.returncode == 0, done.stderr
    squares = [n * n for n in range(14)]
    assert last_json(done.stdout) == {"beta-mlx": squares, "gamma": squares}
    assert up.status() == READY


def test_down_with_a_host_out_of_reach_says_what_is_left(up: Several, beta: Machine) -> None:
    beta.cable(False)
    try:
        refused(up.saf_env("down"), 5, "beta-mlx may still run on beta")
        assert up.processes() == [], "the others were stopped"
    finally:
        beta.cable(True)
    up.ok("down")
    assert "nothing of cluster several was running" in up.ok("down")
    assert [p for p in beta.processes() if "ray" in p.argv[0]] == []


# What differs from the lock


def test_a_node_that_drifted_is_refused_and_healed(down: Several, beta: Machine) -> None:
    changes = {
        "sed -i '$a # edited' lib/python3*/site-packages/ray/__init__.py": "packages-intact",
        "mv lib/python3*/site-packages/numpy-*.dist-info /tmp": "packages-locked",
        "ln -sfn /bin/true bin/python": "packages-locked",
    }
    for change, check in changes.items():
        beta.run(["sh", "-c", f"cd {HOME['beta']}/.saf/envs/mlx-*/ && {change}"])
        found = json.loads(down.saf_env("check", "beta-mlx", "--json").stdout)["findings"]
        assert check in {f["id"] for f in found if f["level"] == "fail"}, found
    refused(down.saf_env("up", "beta-mlx"), 4, "beta-mlx", "packages-locked")
    assert down.processes() == []
    assert "making the environment" in down.saf_env("check", "beta-mlx", "--fix").stderr
    assert json.loads(down.ok("check", "beta-mlx", "--json"))["ok"]


# What goes wrong on the way


def test_ssh_dies_in_the_middle_of_provisioning(down: Several, beta: Machine) -> None:
    wiped(beta)
    running = down.start("up", "beta-mlx")
    eventually(lambda: installing(beta) or running.poll() is not None, 120, "it installs")
    cut(beta)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 5, said
    assert "beta: the connection was lost" in said


def test_a_controller_that_is_killed(down: Several, beta: Machine) -> None:
    """After ssh has died: the next `up` goes on where both have left it."""
    running = down.start("up", "beta-mlx")
    eventually(lambda: installing(beta), 120, "it installs")
    running.kill()
    running.communicate(timeout=60)
    assert "started" in down.ok("up", "beta-mlx", timeout=600)
    assert down.status()["beta-mlx"] == "ready"


@pytest.mark.parametrize("victim", ["ssh", "controller"])
def test_the_start_is_cut_off(down: Several, beta: Machine, victim: str) -> None:
    """The next `up` goes on from whatever has come up."""
    down.ok("up", "gamma")
    running = down.start("up")
    eventually(lambda: starting(beta) or running.poll() is not None, 120, "it starts")
    if victim == "ssh":
        cut(beta)
    else:
        running.kill()
    running.communicate(timeout=120)
    assert "ready" in down.ok("up", timeout=600)
    assert down.status() == READY
    assert len([p for p in beta.processes() if p.argv[0].endswith("/raylet")]) == 1


# Hosts that cannot be


def test_a_host_of_another_platform(down: Several, beta: Machine) -> None:
    fake = "#!/bin/sh\ncase $1 in -m) echo aarch64 ;; *) echo Linux ;; esac\n"
    beta.run(["mv", "/usr/bin/uname", "/usr/bin/uname.real"])
    try:
        beta.put("/usr/bin/uname", fake, mode=0o755)
        refused(down.saf_env("up"), 4, "beta", "Linux on aarch64, planned as linux-x86_64")
    finally:
        beta.run(["mv", "/usr/bin/uname.real", "/usr/bin/uname"])
    assert down.processes() == []


def test_a_firewall_between_two_hosts(down: Several, beta: Machine, gamma: Machine) -> None:
    beta.drop("in", gamma.address)
    try:
        refused(down.saf_env("up"), 4, "peer-matrix", "gamma to beta-mlx", "beta to gamma")
    finally:
        beta.heal()
    assert down.processes() == []


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("missing", ["beta: its host key is not known", "SHA256:", "trust it with"]),
        ("wrong", ["beta: its host key has changed", "ssh-keygen -R"]),
    ],
)
def test_host_keys(
    down: Several,
    machine_yard: Yard,
    beta: Machine,
    gamma: Machine,
    key: Literal["missing", "wrong"],
    words: list[str],
) -> None:
    entry = Entry(beta, host_key=key)
    with installed(machine_yard.ssh_config(entry, Entry(gamma, port=2222))):
        refused(down.saf_env("up"), 5, *words)
        checked = down.saf_env("check", "--json")
    assert checked.returncode == 4
    found = json.loads(checked.stdout)["findings"]
    (told,) = [f for f in found if (f["id"], f["level"]) == ("ssh-host-key", "fail")]
    assert told["node"] == "beta-mlx"
    assert all(word in told["evidence"] + told["hint"] for word in words), told
    assert "ok" in [f["level"] for f in found if (f["node"], f["id"]) == ("gamma", "ssh-host-key")]
    assert down.processes() == []


def test_a_home_that_cannot_be_written_to(down: Several, beta: Machine) -> None:
    wiped(beta)
    with beta.read_only_home():
        refused(down.saf_env("up"), 4, "beta", "Read-only file system", "path of host beta")


def test_a_disk_that_is_full(down: Several, beta: Machine) -> None:
    wiped(beta)
    beta.run(["mkdir", "-p", HOME["beta"]])
    with beta.small_disk(HOME["beta"], "64m"):
        refused(down.saf_env("up"), 4, "beta", "GiB are free", "free space")


def test_a_host_that_nobody_knows(down: Several) -> None:
    text = down.file.read_text(encoding="utf-8")
    wrong = text.replace('ssh = "beta"', 'ssh = "nowhere.invalid"')
    down.file.write_text(wrong, encoding="utf-8")
    try:
        refused(down.saf_env("up"), 5, "beta", "nowhere.invalid")
    finally:
        down.file.write_text(text, encoding="utf-8")


def test_a_head_that_has_moved_in_the_cluster_file(up: Several) -> None:
    """The cluster is still found, and stopped, where it was started."""
    text = up.file.read_text(encoding="utf-8")
    up.file.write_text(
        text.replace(f"port = {up.port}", f"port = {up.port + 1000}"), encoding="utf-8"
    )
    try:
        refused(up.saf_env("up"), 6, "another address or port of its head", "saf-env down")
        assert "stopped: alpha-head, alpha-linux, beta-mlx, gamma" in up.ok("down")
        assert up.processes() == []
    finally:
        up.file.write_text(text, encoding="utf-8")


# Somebody else


def test_two_controllers(down: Several, tmp_path: Path) -> None:
    other = elsewhere(down, tmp_path, down.port)
    running = down.start("up")
    held = Path("/tmp", down.cluster_id, "hold")
    eventually(held.exists, 60, "it works on the cluster")
    refused(other.saf_env("up"), 6, "another saf-env (up, started", "cluster several on alpha")
    refused(other.saf_env("down"), 6, "another saf-env (up, started")
    _, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert down.status() == READY
    assert not held.exists()


def test_another_cluster_of_the_same_name(up: Several, beta: Machine, tmp_path: Path) -> None:
    other = elsewhere(up, tmp_path, up.port + 2000)
    refused(other.saf_env("up"), 6, "beta: ~/.saf-env/several belongs to another", str(up.home))
    refused(other.saf_env("down", "--purge"), 6, "belongs to another cluster")
    other.remove()
    assert up.status() == READY
    assert "everything was up already" in up.ok("up")
    left = beta.run(["sh", "-c", "ls -d /tmp/saf-*"]).stdout.split()
    assert left == [f"/tmp/{up.cluster_id}"]

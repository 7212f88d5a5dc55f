"""A cluster that is hurt, or cannot start: what users see, and that the next `up` mends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.projects import Process, Project, eventually, leaders

READY = {"head": "ready", "linux": "ready"}


def one(project: Project, node: str, chosen: Callable[[Process], bool]) -> int:
    (process,) = (p for p in project.processes() if p.node == node and chosen(p))
    return process.pid


def is_raylet(process: Process) -> bool:
    return process.is_program("raylet")


def is_gcs(process: Process) -> bool:
    return process.is_program("gcs_server")


def is_leader(process: Process) -> bool:
    return process.is_leader


# What runs is hurt


@pytest.mark.parametrize("victim", [is_raylet, is_leader])
def test_a_killed_worker_is_seen_and_only_it_is_started(up: Project, victim) -> None:
    before = leaders(up)

    os.kill(one(up, "linux", victim), signal.SIGKILL)

    eventually(lambda: up.status() == {"head": "ready", "linux": "dead"}, 10, "seen as dead")
    assert "started linux in" in up.ok("up")
    assert up.status() == READY
    assert leaders(up)["head"] == before["head"]
    assert leaders(up)["linux"] != before["linux"]


@pytest.mark.parametrize("victim", [is_gcs, is_leader])
def test_a_killed_head_is_seen_and_all_is_started_anew(up: Project, victim) -> None:
    before = leaders(up)

    os.kill(one(up, "head", victim), signal.SIGKILL)

    eventually(lambda: up.status()["head"] == "dead", 10, "seen as dead")
    assert "started head, linux in" in up.ok("up")
    assert up.status() == READY
    assert not set(leaders(up).values()) & set(before.values())


def lose_state(folder: Path) -> None:
    (folder / "state.json").unlink()


def confuse_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text('{"schema": 2, "cluster": "faulty", "nodes": {"head": [1, "x"]}}', "utf-8")


@pytest.mark.parametrize("harm", [lose_state, confuse_state])
def test_without_its_state_a_cluster_is_known_by_what_it_has_proved(up: Project, harm) -> None:
    before, state = leaders(up), json.loads((up.state / "state.json").read_bytes())

    harm(up.state)

    assert up.status() == READY
    assert "everything was up already" in up.ok("up")
    assert json.loads((up.state / "state.json").read_bytes()) == state, "and it is written again"
    assert up.status() == READY
    assert leaders(up) == before, "nothing was started or stopped"


def test_down_needs_no_state(up: Project) -> None:
    shutil.rmtree(up.home / ".saf" / "clusters")

    assert up.ok("down") == "stopped: head, linux\n"
    assert up.processes() == []


def test_a_changed_token_is_refused_and_the_work_goes_on(up: Project) -> None:
    before, token = leaders(up), up.state / "token"
    text = token.read_text()
    token.write_text("0" * 64)

    refused = up.saf_env("up")
    token.write_text(text)

    assert refused.returncode == 6
    assert "refuses this project's token" in refused.stderr
    assert leaders(up) == before
    assert up.status() == READY


def test_a_changed_plan_is_refused_and_the_work_goes_on(up: Project) -> None:
    before, text = leaders(up), up.file.read_text("utf-8")
    # The number of CPUs is not locked, so the lock stays fresh.
    head, worker = text.rsplit("cpus = 1", 1)
    up.file.write_text(f"{head}cpus = 2{worker}", "utf-8")

    up.ok("lock")
    refused = up.saf_env("up")
    seen = up.status()
    up.file.write_text(text, "utf-8")
    up.ok("lock")

    assert refused.returncode == 6
    assert "running from an earlier plan: linux" in refused.stderr
    assert "saf-env down" in refused.stderr
    assert seen == {"head": "ready", "linux": "drifted"}
    assert leaders(up) == before
    assert "everything was up already" in up.ok("up")


def test_a_damaged_lock_hides_neither_what_runs_nor_its_logs(up: Project) -> None:
    lock = up.home / "lockfiles" / up.name / "lock.toml"
    data = lock.read_bytes()
    lock.write_bytes(data[:-20])

    status, logs = up.saf_env("status"), up.saf_env("logs", "linux")
    lock.write_bytes(data)

    assert status.returncode == 3
    assert "was edited or truncated" in status.stderr
    assert "there run: head, linux" in status.stderr
    assert logs.returncode == 0
    assert "linux raylet.out: " in logs.stdout
    assert up.status() == READY


@contextmanager
def drifted(project: Project, package: str) -> Iterator[None]:
    """The worker's environment, changed by hand."""
    path = Path(project.plan()["nodes"][1]["environment"]["path"])
    (metadata,) = path.glob(f"lib/python3.*/site-packages/{package}-*.dist-info")
    other = metadata.with_name(f"{package}-1.0.dist-info")
    metadata.rename(other)
    try:
        yield
    finally:
        other.rename(metadata)


def test_a_running_node_that_drifts_is_told_and_left_alone(up: Project) -> None:
    before = leaders(up)

    with drifted(up, "certifi"):
        seen, refused = up.status(), up.saf_env("up")

    assert seen == {"head": "ready", "linux": "drifted"}
    assert refused.returncode == 6
    assert "linux is drifted" in refused.stderr
    assert up.status() == READY
    assert leaders(up) == before


def test_one_node_goes_down_and_comes_back(up: Project) -> None:
    before = leaders(up)

    assert up.ok("down", "linux") == "stopped: linux\n"
    assert up.status() == {"head": "ready", "linux": "absent"}
    assert "started linux in" in up.ok("up")
    assert leaders(up)["head"] == before["head"]
    assert up.saf_env("down", "linus").returncode == 2


def test_a_broken_cluster_file_does_not_keep_it_running(up: Project) -> None:
    text = up.file.read_text("utf-8")
    shutil.rmtree(up.home / ".saf" / "clusters" / "local", ignore_errors=True)
    shutil.rmtree(up.home / ".saf" / "clusters" / "other", ignore_errors=True)
    up.file.write_text("[cluster\n", "utf-8")

    named = up.saf_env("down", "linux")
    stopped = up.saf_env("down")
    up.file.write_text(text, "utf-8")

    assert named.returncode == 2
    assert (stopped.returncode, stopped.stdout) == (0, "stopped: head, linux\n")
    assert up.processes() == []


# What is to run cannot


@pytest.fixture
def held_port() -> Iterator[Callable[[int], None]]:
    held: list[socket.socket] = []

    def hold(port: int) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        held.append(listener)

    yield hold
    for listener in held:
        listener.close()


def test_a_taken_port_is_refused_before_anything_starts(down: Project, held_port) -> None:
    held_port(21404)

    refused = down.saf_env("up")

    assert refused.returncode == 4
    assert "ports-free" in refused.stderr
    assert f"pid {os.getpid()}" in refused.stderr
    assert down.processes() == []


@pytest.mark.parametrize(
    ("port", "node"),
    [
        pytest.param(21400, "head", id="gcs"),
        pytest.param(21404, "head", id="node manager of the head"),
        pytest.param(21504, "linux", id="node manager of the worker"),
    ],
)
def test_a_node_that_cannot_start_ends_it_at_once(down: Project, held_port, port, node) -> None:
    held_port(port)
    began = time.monotonic()

    refused = down.saf_env("up", "--ignore", "ports-free")

    assert refused.returncode == 6, refused.stderr
    assert time.monotonic() - began < 20, "Ray itself would take half a minute to notice"
    assert f"{node} died" in refused.stderr
    assert f"The specified port is {port}" in refused.stderr
    assert down.processes() == []
    assert set(down.status().values()) == {"absent"}
    assert node in down.ok("logs", node)


def test_a_stale_lock_is_refused(down: Project) -> None:
    text = down.file.read_text("utf-8")
    down.file.write_text(text.replace('"numpy"', '"numpy<3"'), "utf-8")

    refused = down.saf_env("up")
    down.file.write_text(text, "utf-8")

    assert refused.returncode == 3
    assert "saf-env lock" in refused.stderr
    assert down.processes() == []


def test_a_drifted_node_is_drained_and_stopped(down: Project) -> None:
    checks = ("packages-locked", "packages-extra", "packages-intact")
    ignored = [word for check in checks for word in ("--ignore", check)]

    with drifted(down, "certifi"):
        refused = down.saf_env("up", *ignored)

    assert refused.returncode == 6, refused.stderr
    assert "seen from inside: linux" in refused.stderr
    assert "certifi is 1.0, planned" in refused.stderr
    assert down.processes() == []


def test_a_lost_token_is_not_replaced_under_a_running_cluster(up: Project) -> None:
    token = up.home / ".saf" / "clusters" / up.name / "token"
    aside = token.with_name("aside")
    token.rename(aside)
    try:
        for command in (["up"], ["check", "--fix"]):
            refused = up.saf_env(*command)
            assert refused.returncode == 6
            assert "is gone" in refused.stderr
            assert "saf-env down" in refused.stderr
            assert not token.exists()
        assert "there is no token" in up.ok("status")
    finally:
        aside.rename(token)
    assert up.status() == READY


def test_a_changed_file_under_a_running_node_is_drift(up: Project) -> None:
    plan = json.loads(up.ok("plan", "--json"))
    root = Path(plan["nodes"][1]["environment"]["path"])
    (file,) = root.glob("lib/python3.*/site-packages/idna/core.py")
    before = file.read_bytes()
    file.write_bytes(before + b"# changed")
    try:
        assert up.status() == {"head": "ready", "linux": "drifted"}
        refused = up.saf_env("up")
        assert refused.returncode == 6
        assert "linux is drifted" in refused.stderr
    finally:
        file.write_bytes(before)
    assert up.status() == READY


def test_check_believes_processes_and_not_the_state_file(up: Project) -> None:
    (up.home / ".saf" / "clusters" / up.name / "state.json").unlink()
    assert "may join" in up.ok("check", "--only", "ports-free", "--only", "stale-ray")


def test_a_renamed_cluster_is_told_of_and_stopped_by_all(up: Project) -> None:
    file = up.home / f"{up.name}.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(f'"{up.name}"', '"renamed"'), encoding="utf-8")
    try:
        said = up.ok("down")
        assert "nothing of cluster renamed was running" in said
        assert f"cluster {up.name} of this project runs" in said
        assert "stopped: head, linux" in up.ok("down", "--all")
    finally:
        file.write_text(text, encoding="utf-8")
    assert up.processes() == []

"""Commands that are hurt, or meet each other: nothing is left, and the next `up` converges."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.projects import Process, Project, eventually, leaders

READY = {"head": "ready", "linux": "ready"}


def is_raylet(process: Process) -> bool:
    return process.is_program("raylet")


def is_gcs(process: Process) -> bool:
    return process.is_program("gcs_server")


def no_process(project: Project) -> bool:
    return True


def head_begins(project: Project) -> bool:
    return "head" in leaders(project)


def head_has_ray(project: Project) -> bool:
    return any(is_gcs(p) for p in project.processes())


def worker_begins(project: Project) -> bool:
    return "linux" in leaders(project)


def worker_has_ray(project: Project) -> bool:
    return any(is_raylet(p) and p.node == "linux" for p in project.processes())


MOMENTS = [no_process, head_begins, head_has_ray, worker_begins, worker_has_ray]


def caught_at(project: Project, moment, number: int) -> tuple[int, str]:
    """Start ``up``, send it a signal at a moment; exit code and what it said."""
    process = project.start("up")
    time.sleep(0.25)  # so that the first moment is in the middle of the command, too
    eventually(lambda: moment(project) or process.poll() is not None, 60, moment.__name__)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_up_leaves_nothing(down: Project, moment) -> None:
    code, said = caught_at(down, moment, signal.SIGINT)

    assert code == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert down.processes() == []
    assert set(down.status().values()) == {"absent"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_up_leaves_nothing(down: Project, number) -> None:
    code, said = caught_at(down, worker_begins, number)

    assert (code, "interrupted" in said) == (130, True)
    assert down.processes() == []


@pytest.mark.parametrize("moment", [head_begins, worker_begins, worker_has_ray])
def test_after_a_killed_up_the_next_one_converges(down: Project, moment) -> None:
    code, _ = caught_at(down, moment, signal.SIGKILL)

    assert code == -signal.SIGKILL
    assert set(down.status().values()) <= {"starting", "absent", "dead"}
    down.ok("up")
    assert down.status() == READY


def test_down_cleans_up_after_a_killed_up(down: Project) -> None:
    caught_at(down, head_has_ray, signal.SIGKILL)

    assert "stopped: head" in down.ok("down")
    assert down.processes() == []


def test_an_interrupted_repair_leaves_the_rest_alone(up: Project) -> None:
    before = leaders(up)
    up.ok("down", "linux")

    code, _ = caught_at(up, worker_begins, signal.SIGINT)

    assert code == 130
    assert up.status() == {"head": "ready", "linux": "absent"}
    assert leaders(up) == {"head": before["head"]}


def test_a_terminal_that_is_closed_takes_nothing_with_it(up: Project) -> None:
    """Nodes are in sessions of their own: what ends the session of ``up`` is not for them."""
    mine = os.getsid(0)

    assert all(os.getsid(pid) != mine for pid in leaders(up).values())


@pytest.mark.parametrize("second", ["up", "down"])
def test_of_two_commands_one_wins(down: Project, second: str) -> None:
    first = down.start("up")
    eventually(lambda: leaders(down), 30, "the first one starts the head")

    refused = down.saf_env(second)
    out, said = first.communicate(timeout=120)

    assert refused.returncode == 6
    assert f"saf-env up, pid {first.pid}" in refused.stderr
    assert first.returncode == 0, out + said
    assert down.status() == READY

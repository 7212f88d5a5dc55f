"""What the launcher does with a node, in a world where nothing is started."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saf_env.plan.model import ClusterPlan
from saf_env.runtimes import agent, launcher
from saf_env.runtimes.services import REFUSED, Service


class World:
    """A host on which the node runs, or not; what is done to it is in ``log``."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.log: list[str] = []
        self.running = False
        self.heads = iter([True])
        self.drift: list[str] = []
        self.during: Callable[[], None] = self.die

    def die(self) -> None:
        """The node ends while it is being watched."""
        self.running = False

    def end(self) -> None:
        """The manager ends the launcher while it watches."""
        launcher._end()

    def processes(self) -> list[dict[str, Any]]:
        mark = f"{self.service.temp.name}/{self.service.node.name}/0123.4567"
        own = {"pid": 1, "session": 1, "started": "1", "command": "python", "mark": ""}
        node = {"pid": 2, "session": 2, "started": "2", "command": "python -m ray", "mark": mark}
        return [own, node] if self.running else [own]

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        assert "service" not in request, "that would end the launcher itself"
        self.log.append(request["env"][agent.MARK])
        self.running = True
        return {"pid": 2, "started": "2"}

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        assert "services" not in request, "that would end the launcher itself"
        self.log.append("stop")
        self.running = False
        return {"left": []}


@pytest.fixture
def world(plan: ClusterPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / agent.SERVICE).touch()
    token, folder = tmp_path / "a/b/c/d/token", plan.folder
    service = Service(
        plan.name, "here", plan.address, "0123", folder, token, tmp_path, Path(), plan.node("linux")
    )
    made = World(service)
    monkeypatch.setattr(agent, "processes", made.processes)
    monkeypatch.setattr(agent, "start", made.start)
    monkeypatch.setattr(agent, "stop", made.stop)
    monkeypatch.setattr(agent, "alive", lambda _: made.running)
    monkeypatch.setattr(agent, "answers", lambda *_: next(made.heads))
    monkeypatch.setattr(launcher, "drifted", lambda _: made.drift)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(time, "sleep", lambda _: made.during())
    return made


def test_a_node_is_started_as_up_does_and_again_by_the_manager(world: World) -> None:
    assert launcher.keep(world.service) == 1
    before, mark, after = world.log
    cluster, node, run = mark.split("/")
    assert (cluster, node) == (world.service.temp.name, "linux")
    assert run.startswith("0123.")
    assert (before, after) == ("stop", "stop"), "nothing is left of an earlier start, nor of this"
    noted = json.loads((world.service.folder / agent.RUNNING).read_text(encoding="utf-8"))
    assert noted == {"pid": 1, "started": "1"}


def test_a_node_that_runs_is_only_watched(world: World) -> None:
    world.running = True
    assert launcher.keep(world.service) == 1
    assert world.log == ["stop"]


def test_who_is_told_to_end_stops_the_node(world: World) -> None:
    world.during = world.end
    assert launcher.keep(world.service) == 0
    assert world.log[-1] == "stop"
    assert not world.running


@pytest.mark.parametrize("how", ["released", "removed"])
def test_a_node_outlives_a_service_that_is_removed(world: World, how: str) -> None:
    world.running, world.during = True, world.end
    if how == "released":
        (world.service.folder / launcher.RELEASED).touch()
    else:
        (world.service.folder / agent.SERVICE).unlink()
    assert launcher.keep(world.service) == 0
    assert world.log == []


@pytest.mark.parametrize(("system", "code"), [("linux", REFUSED), ("darwin", 0)])
def test_a_node_that_drifted_is_not_started(
    world: World,
    system: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    world.drift = ["    packages-locked: packages differ from the lock"]
    assert launcher.keep(world.service) == code
    assert world.log == []
    assert "linux is not started" in caplog.text
    assert "packages-locked" in caplog.text
    assert (world.service.folder / launcher.GIVEN_UP).exists()
    world.drift = []
    assert launcher.keep(world.service) == 1
    assert not (world.service.folder / launcher.GIVEN_UP).exists()


def test_a_note_that_cannot_be_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["launcher.pyz", str(tmp_path / agent.SERVICE)])
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit) as ended:
        launcher.main()
    assert ended.value.code == 0
    assert [path.name for path in tmp_path.iterdir()] == [launcher.GIVEN_UP]


def test_a_worker_waits_for_its_head_less_and_less_often(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(agent, "alive", lambda _: False)
    world.heads = iter([False] * 8 + [True])
    launcher.keep(world.service)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_the_head_waits_for_nobody(world: World) -> None:
    world.heads = iter([])
    head = replace(world.service.node, role="head")
    assert launcher.keep(replace(world.service, node=head)) == 1
    assert len(world.log) == 3


def test_an_address_that_is_not_this_machines() -> None:
    assert launcher._is_here("127.0.0.1")
    assert not launcher._is_here("192.0.2.1")


def test_addresses_of_heads() -> None:
    assert launcher._parts("head.local.saf:6380") == ("head.local.saf", 6380)
    assert launcher._parts("[fd00::1]:6380") == ("fd00::1", 6380)


def facts(plan: ClusterPlan) -> dict[str, Any]:
    """What the probe says of an environment that is as planned."""
    env = plan.node("linux").environment
    marker = {
        "key": env.key,
        "environment_sha256": env.lock.sha256,
        "manifest_sha256": "m",
        "python_manifest_sha256": "m",
    }
    return {
        "facts": {
            "interpreter": {
                "implementation": "cpython",
                "version": env.interpreter.version,
                "build": env.interpreter.build,
                "digest": env.interpreter.sha256,
                "executable": "/python",
                "free_threaded": False,
                "debug": False,
            },
            "environment": {"path": str(env.path), "marker": marker, "system_site": False},
            "packages": [[name, version] for name, version in env.packages.items()],
            "isolation": {"startup": [], "base": []},
            "files": dict(FILES),
            "python_files": {**FILES, "path": "/python"},
        },
        "unknown": {},
    }


FILES = {
    "files": 1,
    "hashed": 0,
    "manifest_sha256": "m",
    "changed": [0, []],
    "missing": [0, []],
    "foreign": [0, []],
}


def judged(plan: ClusterPlan, seen: object, monkeypatch: pytest.MonkeyPatch) -> str:
    def answer(*_: object) -> object:
        if isinstance(seen, Exception):
            raise seen
        return seen

    monkeypatch.setattr(launcher, "_facts", answer)
    token = Path("/home/.saf/clusters/local/token")
    service = Service(
        plan.name, "here", "a:1", "0", plan.folder, token, Path(), Path(), plan.node("linux")
    )
    return "\n".join(launcher.drifted(service))


def test_an_environment_is_judged_as_at_the_gate(
    plan: ClusterPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judged(plan, facts(plan), monkeypatch) == ""
    other = facts(plan)
    other["facts"]["files"]["changed"] = [1, ["lib/ray/__init__.py"]]
    assert "packages-intact: 1 of 1 files" in judged(plan, other, monkeypatch)
    other = facts(plan)
    other["facts"]["interpreter"]["digest"] = "0" * 64
    said = judged(plan, other, monkeypatch)
    assert "python-build: another build of Python" in said
    assert "saf-env check --fix" in said


def test_an_environment_that_is_gone_is_not_taken_for_one_that_is_right(
    plan: ClusterPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = judged(plan, ValueError("python does not run"), monkeypatch)
    assert "packages-locked: the environment is not installed" in said
    assert "python does not run" in said

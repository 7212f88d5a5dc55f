"""What is known of containers before they run: once from inside their image, then for ever."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.engine import Engine
from saf_env.errors import BringUpError, CommandTimeoutError
from saf_env.plan.images import image_plan
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.provision import image_facts
from saf_env.provision.image_facts import OF_IMAGE, container_facts, joined
from saf_env.transports.base import CommandResult

ID, BASE = "sha256:" + "1" * 64, "sha256:" + "2" * 64
DOCKER = {"error": "", "os": "Debian", "kernel": "6.1", "cpus": 2}
OF_IT = {"sys_platform": "linux", "machine": "x86_64", "version": "glibc 2.36", "translated": False}
PLATFORM = {**OF_IT, "system": "another", "cpus": 64}
INSIDE: dict[str, Any] = {**{name: {"seen": 1} for name in OF_IMAGE}, "platform": PLATFORM}


class Docker:
    """An engine with one image; counts how often the probe is run in it."""

    def __init__(self, tag: str, facts: dict[str, Any] | None = None, **docker: Any) -> None:
        self.tag, self.docker = tag, {**DOCKER, **docker}
        self.inside = {"facts": INSIDE if facts is None else facts, "unknown": {}}
        self.requests: list[dict[str, Any]] = []
        self.looked: list[str] = []
        self.problem = ""
        self.containers: list[dict[str, Any]] = []

    def facts(self) -> dict[str, Any]:
        return self.docker

    @contextlib.contextmanager
    def api(self) -> Iterator[Any]:
        if self.docker["error"]:
            raise BringUpError("it does not answer")
        yield SimpleNamespace(containers=lambda filters: self.containers)

    def images(self, _: object) -> dict[str, Any]:
        return {self.tag: {"id": ID}, BASE: {"id": BASE}}

    def run(self, *argv: str, stdin: str, **_: object) -> CommandResult:
        self.looked += [word for word in argv if word.startswith("sha256:")]
        self.requests.append(json.loads(stdin.split("\n", 1)[1]))
        if self.problem == "slow":
            raise CommandTimeoutError("docker run did not finish within 60 s")
        code = 1 if self.problem else 0
        return CommandResult(argv, "alpha", code, json.dumps(self.inside), self.problem, 0.1)


@pytest.fixture
def box(plan: ClusterPlan) -> NodePlan:
    node = plan.node("linux")
    image = image_plan(node.environment, BASE, "3" * 64)
    return dataclasses.replace(node, kind="container", fallback_reason="", image=image)


@pytest.fixture
def docker(box: NodePlan) -> Docker:
    assert box.image
    return Docker(box.image.tag)


def look(box: NodePlan, docker: Docker, home: Path, *, deep: bool = False) -> dict[str, Any]:
    """Facts and unknowns of ``box``."""
    engine = cast(Engine, docker)
    seen: dict[str, Any] = container_facts([box], engine, home, "saf-1", deep=deep)[box.name]
    return seen


def kept(home: Path) -> Path:
    return home / ".saf" / "images" / f"facts-{'1' * 12}.json"


def test_without_containers_no_engine_is_asked(tmp_path: Path) -> None:
    assert container_facts([], cast(Engine, None), tmp_path, "saf-1") == {}


def test_an_image_is_looked_into_once(box: NodePlan, docker: Docker, tmp_path: Path) -> None:
    first, second = look(box, docker, tmp_path), look(box, docker, tmp_path)

    assert first == second
    assert docker.requests == [{"only": [*OF_IMAGE], "deep": False}]
    assert first["unknown"] == {}
    assert first["facts"]["packages"] == {"seen": 1}
    assert first["facts"]["docker"] == {
        **DOCKER,
        "image": {"id": ID},
        "base": {"id": BASE},
        "running": "",
    }
    assert docker.looked == [ID]
    # The machine of the probe's own container says nothing; the engine's system does.
    assert first["facts"]["platform"] == {
        **OF_IT,
        "system": "Debian, 6.1",
        "cpus": 2,
    }


@pytest.mark.parametrize("known", [True, False], ids=["renamed", "nameless"])
def test_a_node_that_runs_is_what_its_container_was_made_from(
    box: NodePlan, docker: Docker, tmp_path: Path, known: bool
) -> None:
    other = "sha256:" + "3" * 64
    docker.containers = [{"Labels": {"saf-env.node": box.name}, "ImageID": other}]
    docker.tag = docker.tag if known else "another"

    found = look(box, docker, tmp_path)

    assert found["unknown"] == {}
    assert found["facts"]["docker"]["running"] == other
    assert found["facts"]["docker"]["image"] == ({"id": ID} if known else None)
    assert set(docker.looked) == ({ID, other} if known else {other})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"image": 1}', "id", "facts", "some facts"])
def test_what_was_kept_and_is_no_good_is_not_believed(
    box: NodePlan, docker: Docker, tmp_path: Path, damage: str
) -> None:
    right = look(box, docker, tmp_path)
    value = json.loads(kept(tmp_path).read_text())
    changes: dict[str, dict[str, Any]] = {
        "id": {"image": "sha256:" + "1" * 12 + "0" * 52},
        "facts": {"facts": None},
        "some facts": {"facts": {"packages": []}},
    }
    text = json.dumps({**value, **changes[damage]}) if damage in changes else damage
    kept(tmp_path).write_text(text)

    assert look(box, docker, tmp_path) == right
    assert len(docker.requests) == 2
    assert json.loads(kept(tmp_path).read_text()) == value


def test_another_probe_looks_for_itself(
    box: NodePlan, docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(box, docker, tmp_path)
    monkeypatch.setattr(image_facts, "_look_digest", lambda: "another")
    look(box, docker, tmp_path)
    assert len(docker.requests) == 2


def test_deep_believes_nothing_and_keeps_nothing(
    box: NodePlan, docker: Docker, tmp_path: Path
) -> None:
    look(box, docker, tmp_path, deep=True)
    assert not kept(tmp_path).exists()
    look(box, docker, tmp_path)
    look(box, docker, tmp_path, deep=True)
    assert [request["deep"] for request in docker.requests] == [True, False, True]


def test_a_project_that_cannot_be_written_is_looked_at_all_the_same(
    box: NodePlan, docker: Docker, tmp_path: Path
) -> None:
    (tmp_path / ".saf").write_text("in the way")
    assert look(box, docker, tmp_path)["unknown"] == {}


@pytest.mark.parametrize(
    ("problem", "told"), [("exec format error", "exec format error"), ("slow", "did not finish")]
)
def test_an_image_that_does_not_run_is_unknown(
    box: NodePlan, docker: Docker, tmp_path: Path, problem: str, told: str
) -> None:
    docker.problem, docker.inside = problem, {"facts": {}, "unknown": {}}
    seen = look(box, docker, tmp_path)
    assert seen["facts"].keys() == {"docker"}
    assert seen["unknown"].keys() == {*OF_IMAGE}
    assert told in seen["unknown"]["packages"]
    assert not kept(tmp_path).exists()


def test_without_the_image_everything_of_it_is_unknown(box: NodePlan, tmp_path: Path) -> None:
    assert box.image
    seen = look(box, Docker("saf-env:other"), tmp_path)
    absent = f"the engine has no image {box.image.tag}"
    assert seen["unknown"] == dict.fromkeys(OF_IMAGE, absent)
    assert seen["facts"]["docker"]["image"] is None
    unlocked = look(dataclasses.replace(box, image=None), Docker(""), tmp_path)
    assert unlocked["unknown"]["packages"] == "it has no image"


def test_without_an_engine_its_error_is_the_reason(
    box: NodePlan, docker: Docker, tmp_path: Path
) -> None:
    docker.docker = {"error": "cannot connect"}
    seen = look(box, docker, tmp_path)
    assert set(seen["unknown"].values()) == {"cannot connect"}
    nothing = {"image": None, "base": None, "running": ""}
    assert seen["facts"]["docker"] == {"error": "cannot connect", **nothing}
    assert docker.requests == []


def test_a_node_that_fell_back_is_told_of_the_engine_only(
    plan: ClusterPlan, docker: Docker, tmp_path: Path
) -> None:
    seen = look(plan.node("linux"), docker, tmp_path)
    assert (seen["facts"].keys(), seen["unknown"]) == ({"docker"}, {})
    assert docker.requests == []


def test_facts_of_a_host_and_of_its_container_are_one_nodes() -> None:
    host = {
        "schema": 1,
        "facts": {"platform": "mac", "disk": 1, "packages": "the host's"},
        "unknown": {"shm": "no /dev/shm", "interpreter": "it is in the node's image"},
    }
    inside = {"facts": {"platform": "linux", "interpreter": 3}, "unknown": {"packages": "absent"}}

    assert joined(host, inside) == {
        "schema": 1,
        "facts": {"platform": "linux", "host": "mac", "disk": 1, "interpreter": 3},
        "unknown": {"shm": "no /dev/shm", "packages": "absent"},
    }
    assert host["facts"] == {"platform": "mac", "disk": 1, "packages": "the host's"}

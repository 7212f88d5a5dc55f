"""The engine, from what its command line is known to print."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker.errors
import pytest

from saf_env.engine import NO_CLIENT, Engine, read_images, read_info
from saf_env.errors import BringUpError, CommandTimeoutError
from saf_env.transports.base import CommandResult, Transport
from saf_env.transports.local import LocalTransport

# As Docker 20.10 with Compose 2.26 and Buildx 0.13 prints it, shortened.
INFO = {
    "ServerVersion": "20.10.24",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "KernelVersion": "6.1.0",
    "Architecture": "x86_64",
    "NCPU": 2,
    "MemTotal": 2**33,
    "DockerRootDir": "/var/lib/docker",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns", "rootless"],
    "ClientInfo": {
        "Version": "28.2.2",
        "Plugins": [
            {"Name": "buildx", "Version": "v0.13.1"},
            {"Name": "compose", "Version": "2.26.1-4"},
        ],
    },
}
DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied"
)
ID, DIGEST = "sha256:" + "1" * 64, "sha256:" + "2" * 64
IMAGE = {
    "Id": ID,
    "RepoTags": ["saf-env:a", "other:b"],
    "RepoDigests": [f"debian@{DIGEST}"],
    "Os": "linux",
    "Architecture": "amd64",
    "Config": {"Labels": {"saf-env.key": "k"}},
}


def result(stdout: str = "", *, code: int = 0, stderr: str = "") -> CommandResult:
    return CommandResult(("docker",), "alpha", code, stdout, stderr, 0.1)


@dataclass
class Host:
    """A transport that answers commands by their first two words; anything else hangs."""

    answers: Mapping[str, CommandResult]
    host: str = "alpha"
    asked: list[list[str]] = field(default_factory=list)

    def run(self, argv: Sequence[str], **_: object) -> CommandResult:
        self.asked.append([*argv])
        found = self.answers.get(" ".join(argv[:2]))
        if found is None:
            raise CommandTimeoutError(f"{' '.join(argv[:2])} did not finish within 15 s")
        return found


def engine(folder: Path, commands: Sequence[str], answers: Mapping[str, CommandResult]) -> Engine:
    """An engine on a host that has ``commands`` on its PATH."""
    for name in commands:
        (folder / name).touch(mode=0o755)
    return Engine(
        cast(Transport, Host(answers)), {"PATH": str(folder), "DOCKER_HOST": "x", "A": ""}
    )


def without(*names: str) -> str:
    return json.dumps({k: v for k, v in INFO.items() if k not in names})


def test_an_engine_that_answers() -> None:
    assert read_info(result(json.dumps(INFO))) == {
        "client": "28.2.2",
        "compose": "2.26.1-4",
        "buildx": "0.13.1",
        "error": "",
        "engine": "20.10.24",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "name": "",
        "kernel": "6.1.0",
        "architecture": "x86_64",
        "cpus": 2,
        "memory": 2**33,
        "security": ["seccomp", "cgroupns"],
        "root": "/var/lib/docker",
    }


@pytest.mark.parametrize("error", [docker.errors.APIError("500"), ConnectionResetError("gone")])
def test_an_engine_that_goes_away_is_told(error: Exception) -> None:
    engine = Engine(LocalTransport(), {})
    vars(engine)["_client"] = None  # what would connect
    with pytest.raises(BringUpError, match="engine does not answer") as caught, engine.api():
        raise error
    assert "start it" in caught.value.hint


def test_an_engine_that_refuses_is_not_taken_for_dead() -> None:
    response = SimpleNamespace(status_code=409, url="", reason="Conflict")
    refusal = docker.errors.APIError("409", cast(Any, response), "removal is in progress")
    engine = Engine(LocalTransport(), {})
    vars(engine)["_client"] = None
    with pytest.raises(BringUpError, match="refuses: removal is in progress"), engine.api():
        raise refusal


def test_a_client_that_does_not_say_its_version() -> None:
    old = {**INFO, "ClientInfo": {"Debug": False, "Plugins": []}}
    assert read_info(result(json.dumps(old)))["client"] == "unknown"


@pytest.mark.parametrize(
    ("printed", "client", "error"),
    [
        (result(json.dumps({**INFO, "ServerErrors": [DENIED]})), "28.2.2", DENIED),
        (result(without("ServerVersion"), code=1, stderr="no daemon\n"), "28.2.2", "no daemon"),
        (result("", code=1, stderr="a\nb\nc\nd"), "", "b; c; d"),
        (result(without("ServerVersion")), "28.2.2", "it says nothing"),
        (result("not JSON"), "", "it says nothing"),
        (result('{"ServerVersion": "", "ClientInfo": null}'), "", "it says nothing"),
    ],
)
def test_an_engine_that_does_not(printed: CommandResult, client: str, error: str) -> None:
    found = read_info(printed)
    assert (found["client"], found["error"]) == (client, error)
    assert found.keys() == {"client", "compose", "buildx", "error"}


def test_images_are_known_by_tag_id_and_digest() -> None:
    references = ["saf-env:a", ID, f"debian@{DIGEST}", "saf-env:c", "debian:12"]
    seen = {"id": ID, "os": "linux", "architecture": "amd64", "labels": {"saf-env.key": "k"}}
    assert read_images(json.dumps(IMAGE) + "\n", references) == dict.fromkeys(references[:3], seen)


def test_an_image_without_names_or_labels() -> None:
    bare = {**IMAGE, "RepoTags": None, "RepoDigests": None, "Config": {"Labels": None}}
    assert read_images(json.dumps(bare), [ID, "saf-env:a"])[ID]["labels"] == {}
    assert read_images("", [ID]) == {}


def test_a_host_without_docker_is_asked_nothing(tmp_path: Path) -> None:
    bare = engine(tmp_path, [], {})
    nothing = dict.fromkeys(("client", "compose", "buildx", "compose_alone"), "")
    assert bare.facts() == {**nothing, "error": NO_CLIENT}
    assert bare.images([ID]) == {}
    assert not bare.answers()


DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a b 100 40 60 40% /\n"


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (result(DF.replace("a b", "ab")), {"total": 102400, "free": 61440}),
        (result(DF), None),  # a device with a blank: better nothing than a wrong number
        (result(code=1, stderr="no such file"), None),
        (result(), None),
    ],
)
def test_facts_of_a_whole_engine(
    tmp_path: Path, disk: CommandResult, expected: dict[str, Any] | None
) -> None:
    answers = {
        "docker info": result(json.dumps({**INFO, "KernelVersion": os.uname().release})),
        "docker context": result("unix:///var/run/docker.sock\n"),
        "uname -r": result(f"{os.uname().release}\n"),
        "df -P": disk,
    }
    whole = engine(tmp_path, ["docker", "docker-compose"], answers)
    found = whole.facts()
    assert found.pop("disk") == (expected and {"path": "/var/lib/docker", **expected})
    assert found.pop("endpoint") == "unix:///var/run/docker.sock"
    assert found.pop("compose_alone") == ""
    assert found == {k: v for k, v in read_info(answers["docker info"]).items() if k != "root"}


@pytest.mark.parametrize(
    ("commands", "answer", "alone"),
    [
        (["docker", "docker-compose"], {"docker-compose version": result("1.29.2\n")}, "1.29.2"),
        (["docker", "docker-compose"], {"docker-compose version": result(code=1)}, "unknown"),
        (["docker", "docker-compose"], {}, "unknown"),
        (["docker"], {}, ""),
    ],
)
def test_compose_that_is_no_plugin(
    tmp_path: Path, commands: list[str], answer: dict[str, CommandResult], alone: str
) -> None:
    info: dict[str, Any] = {**INFO, "ClientInfo": {"Version": "28.2.2", "Plugins": []}}
    answers = {"docker info": result(json.dumps(info)), **answer}
    found = engine(tmp_path, commands, answers).facts()
    assert (found["compose"], found["compose_alone"]) == ("", alone)


def test_an_engine_that_hangs_is_one_that_does_not_answer(tmp_path: Path) -> None:
    silent = engine(tmp_path, ["docker"], {})
    assert silent.facts()["error"] == "docker info did not finish within 15 s"
    assert not silent.answers()
    assert silent.images(["saf-env:a"]) == {}


def test_a_user_who_is_not_let_in(tmp_path: Path) -> None:
    answers = {
        "docker info": result(json.dumps({**INFO, "ServerErrors": [DENIED]})),
        "docker version": result("\n", code=1, stderr=DENIED),
    }
    denied = engine(tmp_path, ["docker"], answers)
    assert (denied.facts()["client"], denied.facts()["error"]) == ("28.2.2", DENIED)
    assert not denied.answers()


def test_images_are_asked_for_together(tmp_path: Path) -> None:
    printed = result(json.dumps(IMAGE) + "\n", code=1, stderr="No such image: b")
    having = engine(tmp_path, ["docker"], {"docker image": printed})
    assert having.images(["saf-env:a", "b"]).keys() == {"saf-env:a"}
    assert having.images([]) == {}
    (asked,) = cast(Host, having.transport).asked
    assert asked[-2:] == ["saf-env:a", "b"]


def test_only_what_decides_the_engine_is_handed_on(tmp_path: Path) -> None:
    assert engine(tmp_path, [], {}).variables() == {"PATH": str(tmp_path), "DOCKER_HOST": "x"}
    assert Engine(cast(Transport, Host({})), {}).variables() == {"PATH": os.defpath}

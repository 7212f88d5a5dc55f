"""What an image is built with, and what its failures mean to the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.plan.images import image_plan
from saf_env.plan.model import ClusterPlan, ImagePlan
from saf_env.provision.images import _command, _failure, _tell
from saf_env.provision.settings import Settings
from saf_env.transports.base import CommandResult

BUILD = """\
#4 [build 1/2] FROM docker.io/library/base
#4 DONE 0.1s

#6 [build 2/2] RUN sh /tmp/build/interpreter.sh
#6 0.188 saf-env: installing the interpreter x
#6 0.205 Downloading x
#6 0.300 {said}
#6 ERROR: process "sh /tmp/build/interpreter.sh" did not complete successfully: exit code: 1
------
 > [build 2/2] RUN sh /tmp/build/interpreter.sh:
------
Dockerfile:16
ERROR: failed to solve: process "/bin/sh -c sh" did not complete successfully: exit code: 1
"""


@pytest.fixture
def image(plan: ClusterPlan) -> ImagePlan:
    return image_plan(plan.head.environment, "sha256:" + "1" * 64, "2" * 64)


def test_no_secret_is_on_the_command_line(image: ImagePlan) -> None:
    reach = Settings("export P=s3cret\n", {"netrc": Path("/a, b/.netrc")}, [], loopback=False)
    argv = _command(image, "local", "base:1", Path("/c"), reach)
    assert "s3cret" not in " ".join(argv)
    assert 'id=netrc,"src=/a, b/.netrc"' in argv
    assert "--network" not in argv
    assert argv[argv.index("--platform") + 1] == "linux/amd64"
    labels = {argv[i + 1].split("=")[0] for i, word in enumerate(argv) if word == "--label"}
    names = ("cluster", "environment-lock", "fingerprint", "toolchain", "key")
    assert labels == {f"saf-env.{name}" for name in names}


def test_an_index_of_this_machine_is_reached_over_its_network(image: ImagePlan) -> None:
    argv = _command(image, "local", "base:1", Path("/c"), Settings("", {}, [], loopback=True))
    assert argv[argv.index("--network") + 1] == "host"


def failure(said: str) -> tuple[str, str]:
    error = _failure("build the image", CommandResult(("docker",), "alpha", 1, "", said, 0.1))
    assert error.exit_code == 3
    return error.message, error.hint


def test_what_the_build_itself_says_is_shown_alone() -> None:
    message, _ = failure(BUILD.format(said="saf-env: error: the base image has glibc 2.31"))
    assert message == (
        "alpha: cannot build the image:\nDownloading x\nthe base image has glibc 2.31"
    )


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (BUILD.format(said="tar: write: No space left on device"), "docker builder prune"),
        (BUILD.format(said="exec /bin/sh: exec format error"), "another architecture"),
        (BUILD.format(said="error sending request for url"), "package index"),
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", "start it"),
        ("ERROR: error reading from server: EOF", "has stopped"),
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "buildx"),
        (
            "#3 [internal] load metadata for docker.io/library/a:1\n"
            '#3 ERROR: failed to do request: Head "https://r/v2": no such host',
            "cannot be pulled",
        ),
        ("permission denied while trying to connect to the Docker daemon socket", "get the right"),
    ],
)
def test_the_hint_fits(said: str, hint: str) -> None:
    message, found = failure(said)
    assert hint in found
    assert message.startswith("alpha: cannot build the image:\n")


def test_progress_is_told_once_and_in_whole_lines(tmp_path: Path) -> None:
    log, told = tmp_path / "log", list[str]()
    assert _tell(log, 0, told.append) == 0
    log.write_text("#6 0.1 saf-env: one\n#6 0.2 uv\n#7 0.1 saf-env: error: x\n#7 0.2 saf-", "ascii")
    seen = _tell(log, 0, told.append)
    with log.open("a", encoding="ascii") as file:
        file.write("env: two\n")
    _tell(log, seen, told.append)
    assert told == ["one", "two"]

"""What a host says of its first Python."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import pytest

from saf_env.lock.model import Interpreter
from saf_env.provision.boot import Place, Seen, look
from saf_env.provision.interpreters import is_made, marker_of
from saf_env.transports.base import CommandResult, FileTransport

SENT = Interpreter("linux-x86_64", "3.12.1", "archive", "packed", ".saf/python/p.tgz", "a" * 64)
PLACE = Place(PurePosixPath("/home/a b/.saf-env/x"), SENT)
MARKER = f"marker {json.dumps(marker_of(SENT, PLACE.binary))}"


class Way:
    """A transport to a host that prints these lines."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines

    def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
        return CommandResult(tuple(argv), "beta", 0, "\n".join([*self.lines, ""]), "", 0.1)


def seen(*lines: str) -> Seen:
    code, files = PurePosixPath("/c"), [PurePosixPath("/uv"), PurePosixPath("/p.tgz")]
    return look(cast(FileTransport, Way(lines)), PLACE, code, files)


def test_a_bare_host_has_nothing() -> None:
    assert seen("", "") == Seen(["", ""], code=False, sound=False, linked=False)
    assert seen() == seen("", "")


def test_a_host_that_has_all() -> None:
    found = seen("1" * 64 + "  -", "", "code", "linked", MARKER, "sound")
    assert found == Seen(["1" * 64, ""], code=True, sound=True, linked=True)


@pytest.mark.parametrize(
    "lines", [[MARKER], ["marker ", "sound"], ["marker []", "sound"], ["marker {}", "sound"]]
)
def test_an_interpreter_is_believed_with_its_marker_and_all_its_files(lines: list[str]) -> None:
    assert not seen("", "", "linked", *lines).sound


def test_it_lies_where_environments_look_for_it() -> None:
    folder = "/home/a b/.saf-env/x/.saf/python/cpython-3.12.1-linux-x86_64-aaaaaaaaaaaa"
    binary = "cpython-3.12.1-linux-x86_64-gnu/bin/python3.12"
    assert PLACE.python == f"{folder}/{binary}"
    assert PLACE.link == "/home/a b/.saf-env/x/.saf/python/agent"
    assert PLACE.build.url == "file:///home/a%20b/.saf-env/x/.saf/python/p.tgz"


def test_an_archive_is_the_same_wherever_it_came_from() -> None:
    marker = marker_of(SENT, "python")
    managed = dataclasses.replace(SENT, source="managed", url="https://example.org/p.tgz")
    assert is_made(managed, marker)
    assert not is_made(dataclasses.replace(SENT, sha256="b" * 64), marker)
    assert not is_made(dataclasses.replace(SENT, version="3.12.2"), marker)
    assert is_made(SENT, {"interpreter": vars(SENT), "binary": "python"})

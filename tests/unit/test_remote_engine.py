"""The engine of another host: which of its sockets is meant, and what is said without one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from saf_env.engine import RemoteEngine
from saf_env.errors import BringUpError, HostUnreachableError
from saf_env.preflight.docker import _DENIED
from saf_env.transports.base import CommandResult, FileTransport
from saf_env.transports.local import LocalTransport


@dataclass
class Way(LocalTransport):
    """To a host that is this machine, from the home ``home``; it notes what is forwarded."""

    home: Path
    host: str = "beta"
    forwarded: list[str] = field(default_factory=list)
    lost: bool = False

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str = "",
        cwd: str | None = None,
    ) -> CommandResult:
        # The machine's own engine, if there is one, is not the one that is meant.
        words = [word.replace("/var/run", str(self.home / "run")) for word in argv]
        return super().run(words, env=env, timeout=timeout, stdin=stdin, cwd=str(self.home))

    def forward(self, here: Path, there: str) -> None:
        if self.lost:
            raise HostUnreachableError("beta: it is gone")
        self.forwarded.append(there)


def engine(way: Way, **environ: str) -> RemoteEngine:
    place = Path("/tmp/saf-0/ssh/docker-1")
    transport = cast(FileTransport, way)
    return RemoteEngine(LocalTransport("beta"), environ, way=transport, socket=place)


@contextlib.contextmanager
def listening(home: Path, name: str) -> Iterator[str]:
    """A socket below ``home``."""
    (home / name).parent.mkdir(parents=True)
    before = Path.cwd()
    os.chdir((home / name).parent)  # its path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(Path(name).name)
        os.chdir(before)
        yield str(home / name)


@pytest.mark.parametrize(
    "name",
    ["run/docker.sock", ".docker/run/docker.sock", ".orbstack/run/docker.sock", ".rd/docker.sock"],
)
def test_it_is_found_where_engines_have_their_sockets(tmp_path: Path, name: str) -> None:
    way = Way(tmp_path)
    with listening(tmp_path, name) as there:
        found = engine(way, PATH="/bin", DOCKER_HOST="tcp://elsewhere", DOCKER_CONTEXT="x")
        assert found.variables() == {
            "PATH": "/bin",
            "DOCKER_HOST": "unix:///tmp/saf-0/ssh/docker-1",
        }
        found.variables()
    assert way.forwarded == [there, there]


def test_without_one_it_does_not_answer(tmp_path: Path) -> None:
    bare = engine(Way(tmp_path), PATH=os.environ["PATH"])
    with pytest.raises(BringUpError, match="beta: there is no socket of a Docker engine"):
        bare.variables()
    assert not bare.answers()
    assert bare.architecture() == ""


def test_one_that_lets_nobody_in_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(tmp_path)
    closed = CommandResult(("sh",), "beta", 0, "no /var/run/docker.sock\n", "", 0.0)
    monkeypatch.setattr(way, "run", lambda *_, **__: closed)
    with pytest.raises(BringUpError, match="permission denied") as caught:
        engine(way).variables()
    assert _DENIED.search(caught.value.message)
    assert "usermod -aG docker" in caught.value.hint


def test_a_host_that_is_lost_is_no_engine_that_is_silent(tmp_path: Path) -> None:
    way = Way(tmp_path, lost=True)
    with listening(tmp_path, "run/docker.sock"):
        lost = engine(way, PATH=os.environ["PATH"])
        with pytest.raises(HostUnreachableError):
            lost.endpoint()

"""The engine of another host: which of its sockets is meant, and what is said without one."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import tempfile
import threading
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
    folder: Path = Path("/nonexistent")
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
        here.unlink(missing_ok=True)
        here.symlink_to(there)


def engine(way: Way, **environ: str) -> RemoteEngine:
    transport = cast(FileTransport, way)
    return RemoteEngine(LocalTransport("beta"), environ, way=transport, sockets=way.folder / "d")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as made:
        yield Path(made)


class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def address_string(self) -> str:
        return "here"

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(str(self.server_address))


@contextlib.contextmanager
def listening(path: Path) -> Iterator[str]:
    """A socket at ``path`` whose engine answers."""
    path.parent.mkdir(parents=True)
    with Server(str(path), Ping) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(path)
        server.shutdown()


@pytest.mark.parametrize(
    "name",
    ["run/docker.sock", ".docker/run/docker.sock", ".orbstack/run/docker.sock", ".rd/docker.sock"],
)
def test_it_is_found_where_engines_have_their_sockets(folder: Path, name: str) -> None:
    way = Way(folder / "home", folder)
    with listening(folder / "home" / name) as there:
        found = engine(way, PATH="/bin", DOCKER_HOST="tcp://elsewhere", DOCKER_CONTEXT="x")
        variables = found.variables()
        assert variables.keys() == {"PATH", "DOCKER_HOST"}
        here = Path(variables["DOCKER_HOST"].removeprefix("unix://"))
        assert os.readlink(here) == there
        assert found.variables() == variables


def test_a_socket_that_nobody_serves_hides_no_other(folder: Path) -> None:
    way = Way(folder / "home", folder)
    (folder / "home" / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "home" / "run" / "docker.sock"))
    with pytest.raises(BringUpError, match="beta: nothing answers at") as caught:
        engine(way).variables()
    assert "AllowStreamLocalForwarding" in caught.value.hint
    with listening(folder / "home" / ".orbstack" / "run" / "docker.sock") as there:
        engine(way).variables()
    assert way.forwarded[-1] == there


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


def test_a_host_that_is_lost_is_no_engine_that_is_silent(folder: Path) -> None:
    way = Way(folder / "home", folder, lost=True)
    with listening(folder / "home" / "run" / "docker.sock"):
        lost = engine(way, PATH=os.environ["PATH"])
        with pytest.raises(HostUnreachableError):
            lost.endpoint()

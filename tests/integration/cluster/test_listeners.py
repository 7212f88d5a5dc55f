"""Who listens and who calls, as real processes on the loopback interface."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saf_env.cluster import listeners
from saf_env.transports.base import Running
from saf_env.transports.local import LocalTransport
from saf_env.transports.script import script
from tests.projects import eventually

HERE = LocalTransport("here")
ENV = {"PATH": "/usr/bin:/bin"}
AT = "127.0.0.1"
WORDS = {"question": "who is there", "answer": "one of us", "patience": 0.5}
SOURCE = Path(listeners.__file__)


def free(count: int) -> list[int]:
    """Numbers of ports that nobody has."""
    opened = [socket.create_server((AT, 0)) for _ in range(count)]
    numbers = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return numbers


def request(op: str, **more: Any) -> tuple[list[str], str]:
    return script(sys.executable, SOURCE, {"op": op, **WORDS, **more})


class Listening:
    """Something that listens on ``ports``."""

    def __init__(self, *ports: int, address: str = AT, seconds: float = 20.0) -> None:
        wanted = [(address, port) for port in ports]
        argv, stdin = request("listen", ports=wanted, seconds=seconds)
        self.running: Running = HERE.start(argv, env=ENV, stdin=stdin)

    def __enter__(self) -> list[Any]:
        """The ports that it could not have, once it listens on the others."""
        line = eventually(self.running.printed, 10, "it listens")
        taken: list[Any] = json.loads(line)["taken"]
        return taken

    def __exit__(self, *_: object) -> None:
        self.running.stop()


def called(*targets: tuple[int, bool], bursts: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    places = [(AT, port, ours) for port, ours in targets]
    sent = {"targets": places, "bursts": [(AT, port) for port in bursts], **more}
    argv, stdin = request("call", **sent)
    done = HERE.run(argv, env=ENV, timeout=30, stdin=stdin)
    assert done.ok, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def whys(answer: dict[str, Any]) -> list[str]:
    return [why for why, _ in answer["calls"]]


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex((AT, port)) != 0


@pytest.fixture
def foreign() -> Iterator[socket.socket]:
    """A service of somebody else, which accepts nobody by itself."""
    with socket.create_server((AT, 0)) as opened:
        yield opened


def test_ways_that_are_open() -> None:
    ports = free(9)
    with Listening(*ports) as taken:
        assert taken == []
        answer = called(*((port, True) for port in ports), bursts=tuple(ports[:2]))
    assert whys(answer) == [""] * 9
    assert all(0 < ms < 500 for _, ms in answer["calls"])
    assert all(rate > 10e6 for rate in answer["rates"])


def test_who_is_refused_is_told_from_who_hears_nothing() -> None:
    (nobody,) = free(1)
    with socket.socket() as full:
        full.bind((AT, 0))
        full.listen(0)
        number = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]  # nobody accepts them, and no more get in
        for one in waiting:
            one.setblocking(False)
            one.connect_ex((AT, number))
        began = time.monotonic()
        answer = called((nobody, True), (number, True), bursts=(nobody,))
        assert time.monotonic() - began < 3
        for one in waiting:
            one.close()
    assert whys(answer) == [listeners.REFUSED, listeners.SILENT]
    assert answer["rates"] == [None]


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_service_is_told_apart(foreign: socket.socket, words: bytes) -> None:
    def serve() -> None:
        caller, _ = foreign.accept()
        with caller:
            caller.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    port = foreign.getsockname()[1]
    assert whys(called((port, True))) == [listeners.OTHER]
    thread.join()
    # One that accepts, and says nothing; a node that runs is not asked anything.
    assert whys(called((port, True), (port, False))) == [listeners.OTHER, ""]


def test_who_does_not_know_the_question_is_told_nothing() -> None:
    (port,) = free(1)
    with Listening(port):
        assert whys(called((port, True), question="WHO IS THERE")) == [listeners.OTHER]
        assert whys(called((port, True), answer="some of us")) == [listeners.OTHER]
        with socket.create_connection((AT, port), 5) as way:
            way.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            way.settimeout(5)
            with contextlib.suppress(ConnectionResetError):  # it has not read all of that
                assert way.recv(100) == b""
        assert whys(called((port, True))) == [""]


def test_ports_that_cannot_be_had_keep_nobody_from_the_others(foreign: socket.socket) -> None:
    held, (port,) = foreign.getsockname()[1], free(1)
    with Listening(held, port) as taken:
        assert taken == [[AT, held, listeners.OTHER]]
        assert whys(called((held, True), (port, True))) == [listeners.OTHER, ""]
    with Listening(port, address="192.0.2.1") as taken:
        why = f"cannot be listened on: {os.strerror(errno.EADDRNOTAVAIL)}"
        assert taken == [["192.0.2.1", port, why]]


def test_a_port_that_was_taken_between() -> None:
    (port,) = free(1)
    with Listening(port) as taken:
        assert taken == []
    with socket.create_server((AT, port)):
        assert whys(called((port, True))) == [listeners.OTHER]


def test_nothing_listens_once_it_is_stopped() -> None:
    (port,) = free(1)
    listening = Listening(port)
    with listening:
        assert whys(called((port, True), bursts=(port,))) == [""]
    assert is_free(port)
    with socket.socket() as plain:  # not even a connection that has ended holds it
        plain.bind((AT, port))
    assert listening.running.poll() is not None


def test_it_ends_with_who_reads_it_and_after_its_seconds() -> None:
    first, second = free(2)
    argv, stdin = request("listen", ports=[(AT, first)], seconds=60)
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stdin)
        process.stdin.close()
        assert process.stdout.readline() == '{"taken": []}\n'
        process.stdout.close()
        assert process.wait(10) == 0
    listening = Listening(second, seconds=0.3)
    with listening:
        eventually(listening.running.poll, 10, "it ends by itself")
        assert is_free(second)

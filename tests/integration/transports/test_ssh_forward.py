"""A socket of a host that is made one of this machine."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saf_env.errors import BringUpError
from tests.projects import eventually

if TYPE_CHECKING:
    from tests.integration.transports.conftest import Sshd


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def there(folder: Path) -> Iterator[str]:
    """A socket of the host that greets."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "there"))
        listener.listen()

        def greet() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with caller:
                    caller.sendall(b"hello")

        thread = threading.Thread(target=greet)
        thread.start()
        yield str(folder / "there")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


def greeting(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(str(path))
        return caller.recv(100)


def test_a_socket_leads_to_the_host(sshd: Sshd, folder: Path, there: str) -> None:
    host, here = sshd.transport(LocalForward="127.0.0.1:1 127.0.0.1:1"), folder / "here"
    host.forward(here, there)
    host.forward(here, there)
    assert greeting(here) == b"hello"
    assert here.stat().st_mode & 0o077 == 0
    host.close()
    eventually(lambda: not answers(here), 10, "the connection has ended")


def test_after_a_lost_connection_it_leads_there_again(sshd: Sshd, folder: Path, there: str) -> None:
    host, here = sshd.transport(), folder / "here"
    host.forward(here, there)
    for pid in sshd.sessions():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not answers(here), 10, "the client has noticed")
    host.forward(here, there)
    assert greeting(here) == b"hello"


def test_a_place_that_cannot_be_is_told(sshd: Sshd, folder: Path, there: str) -> None:
    with pytest.raises(BringUpError, match=r"box: .*there cannot be forwarded") as caught:
        sshd.transport().forward(folder / "no folder" / "here", there)
    assert "the right to make a socket" in caught.value.hint

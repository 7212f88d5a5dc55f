"""Hosts over SSH that do not answer, do not let us in, or go away: each is told as what it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saf_env.errors import HostKeyError, HostUnreachableError, SafEnvError, ToolchainError
from saf_env.transports.ssh import SshTransport
from tests.projects import eventually

if TYPE_CHECKING:
    from tests.integration.transports.conftest import Sshd

ENV = {"PATH": "/usr/bin:/bin"}


def refusal(host: SshTransport) -> HostUnreachableError:
    with pytest.raises(HostUnreachableError) as caught:
        host.run(["true"], env=ENV, timeout=60)
    return caught.value


@pytest.fixture
def freeze(sshd: Sshd) -> Iterator[Callable[[], None]]:
    """Stops the server's side of all connections, as a network that swallows everything does."""
    frozen: list[int] = []

    def stop() -> None:
        frozen.extend(sshd.sessions())
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    yield stop
    for pid in frozen:
        os.kill(pid, signal.SIGKILL)


def fingerprint(file: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-lf", file], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def keygen(file: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return Path(f"{file}.pub").read_text(encoding="utf-8")


def test_an_unknown_host_key_is_shown_and_never_accepted(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    refused = refusal(sshd.transport(UserKnownHostsFile=str(known)))

    assert isinstance(refused, HostKeyError)
    assert not refused.changed
    assert refused.fingerprint == fingerprint(sshd.home / "host_key.pub")
    assert f"it shows an ED25519 key, {refused.fingerprint}" in refused.message
    assert "StrictHostKeyChecking=ask" in refused.hint
    assert not known.exists()


def test_a_jump_host_s_guest_is_not_asked_for_its_key(sshd: Sshd, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        f"s = socket.create_connection(('127.0.0.1', {sshd.port}))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    proxy = f"/usr/bin/env python3 {relay}"
    known = str(tmp_path / "none")

    refused = refusal(sshd.transport(ProxyCommand=proxy, UserKnownHostsFile=known))
    assert isinstance(refused, HostKeyError)
    assert (refused.changed, refused.fingerprint) == (False, "")

    began = time.monotonic()
    host = sshd.transport(ProxyCommand=proxy)
    assert host.run(["true"], env=ENV, timeout=20).ok, "what stays of the proxy holds nothing up"
    assert time.monotonic() - began < 10


def test_a_changed_host_key_is_told_apart(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {keygen(tmp_path / 'other')}", encoding="utf-8")

    refused = refusal(sshd.transport(UserKnownHostsFile=str(known)))

    assert isinstance(refused, HostKeyError)
    assert refused.changed
    assert refused.fingerprint == fingerprint(sshd.home / "host_key.pub")
    assert f"line 1 of {known}" in refused.message
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {known}" in refused.hint
    assert "owner" in refused.hint


def test_a_wrong_key_is_told(sshd: Sshd, tmp_path: Path) -> None:
    keygen(tmp_path / "id")
    refused = refusal(sshd.transport(IdentityFile=str(tmp_path / "id")))
    assert "box: it lets this user in with none of the keys" in refused.message
    assert "Permission denied (publickey)" in refused.message
    assert "authorized_keys" in refused.hint


def test_a_port_that_is_closed_and_a_name_that_is_none(sshd: Sshd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = refusal(sshd.transport(Port=str(free.getsockname()[1])))
    assert "box: nothing accepts SSH connections there" in refused.message
    assert "its name does not resolve" in refusal(sshd.transport(HostName="no.invalid")).message


def test_a_server_that_says_nothing_is_left_after_ten_seconds(sshd: Sshd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = sshd.transport(Port=str(silent.getsockname()[1]))
        began = time.monotonic()
        # Those who wait for the same connection do not try one after another.
        with ThreadPoolExecutor(5) as pool:
            refused = list(pool.map(refusal, [host] * 5))
    assert 9 < time.monotonic() - began < 15
    assert {"box: it does not answer" in r.message for r in refused} == {True}


def test_a_configuration_that_ssh_refuses(sshd: Sshd) -> None:
    refused = refusal(sshd.transport(NoSuchOption="yes"))
    assert "ssh refuses its configuration" in refused.message


def test_a_machine_without_an_ssh_client(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    host = SshTransport("box", "box", folder=Path("/tmp/s"), environ=environ)
    with pytest.raises(ToolchainError, match="this machine: there is no ssh") as caught:
        host.run(["true"], env=ENV, timeout=20)
    assert "install OpenSSH's client" in caught.value.hint


def test_a_connection_that_is_cut_is_no_exit_code(sshd: Sshd) -> None:
    host = sshd.transport()
    host.run(["true"], env=ENV, timeout=20)

    def cut() -> None:
        for pid in sshd.sessions():
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(1, cut)
    timer.start()
    began = time.monotonic()
    with pytest.raises(HostUnreachableError, match="box: the connection was lost while sh ran"):
        host.run(["sh", "-c", "echo half; sleep 8"], env=ENV, timeout=30)
    assert time.monotonic() - began < 5
    assert host.run(["true"], env=ENV, timeout=20).ok, "the next command opens another"


def test_a_command_beside_us_tells_that_its_connection_was_cut(sshd: Sshd) -> None:
    host = sshd.transport()
    running = host.start(["sleep", "8"], env=ENV)
    time.sleep(0.5)
    for pid in sshd.sessions():
        os.kill(pid, signal.SIGKILL)

    def told() -> SafEnvError | None:
        try:
            assert running.poll() is None
        except SafEnvError as error:
            return error
        return None

    assert "the connection was lost while sleep ran" in str(eventually(told, 5, "it is told"))
    running.stop()


def test_a_connection_that_stalls_ends(sshd: Sshd, freeze: Callable[[], None]) -> None:
    host = sshd.transport()
    host.run(["true"], env=ENV, timeout=20)
    threading.Timer(1, freeze).start()
    began = time.monotonic()
    with pytest.raises(HostUnreachableError, match="the connection was lost while sleep ran"):
        host.run(["sleep", "50"], env=ENV, timeout=60)
    assert 10 < time.monotonic() - began < 25


def test_a_connection_that_stalled_before_is_replaced(
    sshd: Sshd, freeze: Callable[[], None]
) -> None:
    host = sshd.transport()
    host.run(["true"], env=ENV, timeout=20)
    freeze()
    assert host.run(["echo", "x"], env=ENV, timeout=40).stdout == "x\n"


def test_a_time_out_over_a_stalled_connection_does_not_wait_long(
    sshd: Sshd, freeze: Callable[[], None]
) -> None:
    running = sshd.transport().start(["sleep", "50"], env=ENV)
    time.sleep(0.5)
    freeze()
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 14

"""Files that are put on a host over SSH: whole, or not at all."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saf_env.errors import BringUpError, CommandTimeoutError, HostUnreachableError
from tests.projects import eventually

if TYPE_CHECKING:
    from tests.integration.transports.conftest import Sshd


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("user", ["bashful", "fishy"])
def test_a_file_and_its_folders(sshd: Sshd, tmp_path: Path, user: str) -> None:
    host = sshd.transport(user)
    target = tmp_path / "a b" / "it's" / "-file"
    data = bytes(range(256)) * 1000 + b"\r\n\0"

    host.put(data, str(target), timeout=20)
    host.put(b"", str(target.with_name("empty")), mode=0o755, timeout=20)

    assert target.read_bytes() == data
    assert (mode(target), mode(target.parent), mode(target.parent.parent)) == (0o600, 0o700, 0o700)
    assert mode(target.with_name("empty")) == 0o755
    assert {p.name for p in target.parent.iterdir()} == {"-file", "empty"}


def test_a_large_file_replaces_another(sshd: Sshd, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(1_000_000) * 100)
    target.write_text("old")
    target.with_name(".target.saf-env-new").write_text("left by an interruption")

    sshd.transport().put(source, str(target), timeout=60)

    assert target.read_bytes() == source.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"source", "target"}


def test_a_relative_path_begins_at_home(sshd: Sshd) -> None:
    sshd.transport().put(b"x", "-new/file", timeout=20)
    assert (sshd.home / "homes" / "plain" / "-new" / "file").read_bytes() == b"x"


def test_a_full_disk_is_told(sshd: Sshd) -> None:
    host, target = sshd.transport(), str(sshd.small / "file")
    host.put(b"old", target, timeout=20)

    with pytest.raises(
        BringUpError, match=r"box: cannot write .*No space left on device"
    ) as caught:
        host.put(bytes(3_000_000), target, timeout=20)

    assert "free some space" in caught.value.hint
    look = ["sh", "-c", 'ls -A "$1"; cat "$1/file"', "sh", str(sshd.small)]
    assert host.run(look, env={"PATH": "/bin"}, timeout=20).stdout == "file\nold"


def test_places_that_no_file_can_have(sshd: Sshd, tmp_path: Path) -> None:
    host = sshd.transport()
    (tmp_path / "file").touch()
    # root may write to any folder but those of the kernel, or below a file
    for target, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "x", "Not a directory|File exists"),
        (Path("/proc/saf-env"), "cannot create"),
    ):
        with pytest.raises(BringUpError, match=rf"box: cannot write {target}: .*({why})"):
            host.put(b"x" * 100_000, str(target), timeout=20)
    with pytest.raises(BringUpError, match=r"box: cannot send .*No such file"):
        host.put(tmp_path / "none", str(tmp_path / "x"), timeout=20)
    with pytest.raises(BringUpError, match=r"box: cannot send .*not a file"):
        host.put(tmp_path, str(tmp_path / "x"), timeout=20)


def test_a_link_in_the_way_is_not_followed(sshd: Sshd, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".file.saf-env-new").symlink_to(victim)
    (tmp_path / "file").symlink_to(victim)

    sshd.transport().put(b"theirs", str(tmp_path / "file"), timeout=20)

    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert not (tmp_path / "file").is_symlink()


def test_an_interruption_leaves_the_old_file(sshd: Sshd, tmp_path: Path) -> None:
    host = sshd.transport()
    source, target = tmp_path / "source", tmp_path / "file"
    target.write_text("old")
    with source.open("wb") as file:
        file.truncate(10**10)  # no disk needed, and more than a second allows
    with pytest.raises(CommandTimeoutError, match="write did not finish within 1 s"):
        host.put(source, str(target), timeout=1)
    assert target.read_text() == "old"
    host.put(b"new", str(target), timeout=20)
    assert target.read_text() == "new"


def test_a_cut_leaves_the_old_file(sshd: Sshd, tmp_path: Path) -> None:
    host = sshd.transport()
    host.put(b"old", str(tmp_path / "file"), timeout=20)

    def cut() -> None:
        new = tmp_path / ".file.saf-env-new"
        eventually(lambda: new.exists() and new.stat().st_size > 1_000_000, 20, "it has begun")
        for pid in sshd.sessions():
            os.kill(pid, signal.SIGKILL)

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(HostUnreachableError, match="the connection was lost while write ran"):
        host.put(bytes(500_000_000), str(tmp_path / "file"), timeout=60)
    cutter.join()
    assert (tmp_path / "file").read_bytes() == b"old"
    host.put(b"new", str(tmp_path / "file"), timeout=20)
    eventually(lambda: {p.name for p in tmp_path.iterdir()} == {"file"}, 5, "nothing else is left")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("user", ["bashful", "fishy"])
def test_a_command_is_fed(sshd: Sshd, user: str) -> None:
    env = {"PATH": "/usr/bin:/bin"}
    data = [bytes(range(256)) * 4096] * 40
    done = sshd.transport(user).run(["wc", "-c"], env=env, timeout=20, stdin=iter(data))
    assert (done.code, done.stdout.split()) == (0, [str(sum(map(len, data)))])
    early = sshd.transport(user).run(["false"], env=env, timeout=20, stdin=iter(data))
    assert early.code == 1, "who does not read to the end is no failure of ours"

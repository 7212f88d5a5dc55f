"""The lock of a cluster on another host, over SSH; and whose the folder there is."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from saf_env.cluster.claims import origin
from saf_env.cluster.hold import Work, hold
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import BringUpError, BusyError, HostUnreachableError
from saf_env.plan.model import HostPlan
from saf_env.runtimes.native import NativeRuntime
from tests.integration.transports.conftest import Sshd
from tests.projects import eventually

HOME = Path(".saf-env/studio")


@pytest.fixture
def folder() -> Iterator[Path]:
    """The temp folder of a cluster."""
    made = Path(tempfile.mkdtemp(prefix="saf-", dir="/tmp"))
    made.rmdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def hosts(sshd: Sshd, folder: Path, user: str = "plain") -> Hosts:
    """One host, ``box``, by a connection of its own."""
    way = sshd.transport(user)
    plan = HostPlan("box", "127.0.0.1", "linux-x86_64", f"{user}@box", None, HOME)
    runtime = Runtimes(NativeRuntime(way, Path("none"), folder, Path("none")))
    host = Host(plan, way, runtime, cast(Engine, None), Path("none"))
    return Hosts({"box": host}, folder, {}, "box")


def work(command: str = "up", project: str = "/project") -> Work:
    return Work("studio", command, Path(project))


@pytest.mark.parametrize("user", ["plain", "bashful", "fishy", "zeeshell"])
def test_of_two_one_wins_and_the_other_says_so(sshd: Sshd, folder: Path, user: str) -> None:
    first, second = hosts(sshd, folder, user), hosts(sshd, folder, user)
    with hold(first, work(), ["box"]) as lost:
        assert lost == {}
        with (
            pytest.raises(BusyError, match=r"\(up, started \d+ s ago by .*\) .* studio on box"),
            hold(second, work("down"), ["box"]),
        ):
            pass
    with hold(second, work("down"), ["box"]):
        pass
    assert not folder.exists()


def test_a_connection_that_is_lost_frees_it(sshd: Sshd, folder: Path) -> None:
    second = hosts(sshd, folder)
    with hold(hosts(sshd, folder), work(), ["box"]):
        for pid in sshd.sessions():
            os.kill(pid, signal.SIGKILL)

        def free() -> bool:
            try:
                with hold(second, work("down"), ["box"]) as lost:
                    return not lost
            except BusyError:
                return False

        eventually(free, 5, "the other holds it")


@pytest.mark.parametrize("how", ["connection", "holder"])
def test_who_has_lost_it_stops_nothing_more(sshd: Sshd, folder: Path, how: str) -> None:
    made = hosts(sshd, folder)
    with hold(made, work("down"), ["box"]):
        assert made.stop([], []) == ([], {}), "it is held"
        if how == "holder":
            pid = int((folder / "hold").read_text(encoding="utf-8").split()[1])
            os.kill(pid, signal.SIGTERM)
        else:
            for pid in sshd.sessions():
                os.kill(pid, signal.SIGKILL)
        _, lost = made.stop([], [])
    assert lost["box"].message.startswith("box: the lock of cluster studio is lost there")


def test_a_host_that_is_lost_is_told(sshd: Sshd, folder: Path) -> None:
    made = hosts(sshd, folder)
    sshd.stop()
    with hold(made, work("down"), ["box"]) as lost:
        assert isinstance(lost["box"], HostUnreachableError)


def test_another_clusters_folder_is_left_alone(sshd: Sshd, folder: Path) -> None:
    home = sshd.home / "homes" / "plain" / HOME
    shutil.rmtree(home, ignore_errors=True)
    other = hosts(sshd, Path(f"{folder}x"))
    with hold(hosts(sshd, folder), work(), []):
        pass
    refusal = "belongs to another cluster of the same name, that of .*:/project"
    with pytest.raises(BringUpError, match=refusal), hold(other, work(project="/other"), []):
        pass
    other.leave(origin(Path("/other")))
    with pytest.raises(BringUpError, match=refusal):
        other.purge(origin(Path("/other")))
    assert (home / ".saf" / "owner").exists()

    hosts(sshd, folder).leave(origin(Path("/project")))
    with hold(other, work(project="/other"), []):
        pass
    other.purge(origin(Path("/other")))
    assert not home.parent.exists()

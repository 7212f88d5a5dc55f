"""Who holds a cluster, what the other is told, and that all is given back whatever happens."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster.claims import belongs_to_another, claim_here, origin, who
from saf_env.cluster.hold import Words, Work, beats, busy, held_here, hold
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import BringUpError, BusyError, HostUnreachableError, UsageError
from saf_env.plan.model import HostPlan
from saf_env.transports.base import Transport

UP = Work("studio", "up", Path("/project"))
DOWN = Work("studio", "down", Path("/project"))
LOST = HostUnreachableError("gamma: no route", hint="plug it in")


class Way:
    """A host over SSH whose holder answers at once, and ends when it is told nothing more."""

    def __init__(self, answer: str | Exception = "held", log: list[str] | None = None) -> None:
        self.answer, self.log = answer, [] if log is None else log
        self.argv: list[str] = []
        self.feed: Iterator[bytes] = iter(())
        self.said = ""
        self.end: str | Exception | None = None
        self.stopped = 0

    def named(self, name: str) -> Way:
        self.name = name
        return self

    def start(self, argv: list[str], *, env: Any, stdin: Iterator[bytes]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        self.log.append(self.name)
        self.argv, self.feed, self.said = argv, stdin, ""
        return SimpleNamespace(printed=self.printed, poll=self.poll)

    def printed(self) -> str:
        """What it has said, and to all that it is told, the same."""
        if not self.said:
            self.said = f"{self.answer}\n" if self.answer else ""
        elif self.end is None:
            self.said += next(self.feed).decode()
        return self.said

    def poll(self) -> str:
        if isinstance(self.end, Exception):
            raise self.end
        return "ended"

    def close(self) -> None:
        """The next call opens another connection."""

    def stop(self, *_: object, **__: object) -> list[str]:
        self.stopped += 1
        return [self.name]

    @property
    def freed(self) -> bool:
        return next(self.feed, None) is None


def hosts(folder: Path, ways: Mapping[str, Way], head: str = "beta") -> Hosts:
    """Hosts by name; ``here`` is this machine."""
    made = {}
    for name, way in ways.items():
        ssh = "" if name == "here" else name
        plan = HostPlan(name, name, "linux-x86_64", ssh, None, Path(".saf-env/studio"))
        transport = cast(Transport, way.named(name))
        runtime = cast(Runtimes, way)
        made[name] = Host(plan, transport, runtime, cast(Engine, None), Path("py"))
    return Hosts(made, folder, {name: name for name in made}, head)


def test_who_comes_second_is_told_who_came_first() -> None:
    said = busy("studio", "beta", "1000 77 ab root@alpha check --fix", "1012")

    assert said.message == (
        "another saf-env (check --fix, started 12 s ago by root@alpha) is working on cluster "
        "studio on beta"
    )
    assert "wait until it has finished" in said.hint
    assert said.exit_code == BusyError.exit_code
    assert "5 min ago" in busy("studio", "beta", "1000 77 ab root@alpha up", "1300").message
    assert "0 s ago" in busy("studio", "beta", "1000 77 ab root@alpha up", "990").message


@pytest.mark.parametrize("line", ["", "1000", "x y z up", "1000 77 ab root@alpha"])
def test_one_that_has_said_nothing_yet_is_told_all_the_same(line: str) -> None:
    assert busy("studio", "", line, "1012").message == (
        "another saf-env is working on cluster studio on this machine"
    )


def test_we_are_one_word() -> None:
    assert len(who().split()) == 1
    assert "@" in who()
    assert origin(Path("/a  b\nc")) == f"{who()}:/a b c"


def test_a_holder_hears_something_until_the_end() -> None:
    words: Words = SimpleQueue()
    heard = beats(words, 0.001)
    assert [next(heard), next(heard)] == [b"\n", b"\n"]
    words.put(b"word\n")
    words.put(b"")
    assert next(heard) == b"word\n"
    assert next(heard, None) is None


def test_a_folder_of_another_cluster_is_told_with_its_project() -> None:
    plan = HostPlan("beta", "beta", "linux-x86_64", "beta", None, Path(".saf-env/studio"))
    said = belongs_to_another(plan, "saf-1 anna@alpha:/home/anna/ray")
    assert said.message.startswith("beta: ~/.saf-env/studio belongs to another cluster")
    assert "anna@alpha:/home/anna/ray" in said.message
    assert "remove ~/.saf-env/studio/.saf/owner on beta" in said.hint
    assert said.exit_code == 6


def test_this_machines_folder_is_claimed_where_the_cluster_is_run_from_another(
    tmp_path: Path,
) -> None:
    host = HostPlan("beta", "beta", "linux-x86_64", "", None, tmp_path / "studio")
    claim_here(host, "saf-1", "root@beta:/a")
    claim_here(host, "saf-1", "root@beta:/b")
    note = tmp_path / "studio" / ".saf" / "owner"
    assert note.read_text(encoding="utf-8") == "saf-1 root@beta:/a\n"
    with pytest.raises(BringUpError, match=r"belongs to another cluster .* root@beta:/a"):
        claim_here(host, "saf-2", "root@beta:/a")
    (tmp_path / "file").touch()
    claim_here(dataclasses.replace(host, home=tmp_path / "file"), "saf-1", "x")


# This machine


def test_this_machine_is_held_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "saf-1"
    with held_here(folder, UP, "alpha"):
        now, pid, line = (folder / "hold").read_text(encoding="utf-8").strip().split(" ", 2)
        assert (int(pid), line) == (os.getpid(), f"{UP.run} {who()} up")
        assert abs(int(now) - time.time()) < 5
        with (
            pytest.raises(BusyError, match=r"\(up, started \d s ago by .*\) .* studio on alpha"),
            held_here(folder, DOWN, "alpha"),
        ):
            pass
    assert not folder.exists(), "nothing is left of it"
    with held_here(folder, DOWN, "alpha"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "head.log").touch()
    with pytest.raises(KeyboardInterrupt), held_here(tmp_path, UP, "alpha"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["head.log"]


def test_a_lock_that_was_left_behind_is_none(tmp_path: Path) -> None:
    (tmp_path / "hold").write_text("1000 77 ab root@alpha up\n", encoding="utf-8")
    with held_here(tmp_path, UP, "alpha"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"cannot lock .*/hold"),
        held_here(tmp_path / "file", UP, "alpha"),
    ):
        pass


# Several hosts


def test_a_cluster_of_this_machine_needs_no_second_lock(tmp_path: Path) -> None:
    with hold(hosts(tmp_path / "saf-1", {"here": Way()}), UP, ["here"]) as lost:
        assert lost == {}
        assert not (tmp_path / "saf-1").exists()


def test_the_heads_host_comes_first_and_all_are_given_back(tmp_path: Path) -> None:
    log: list[str] = []
    ways = {name: Way(log=log) for name in ("alpha", "beta", "gamma", "delta")}
    with hold(hosts(tmp_path / "saf-1", ways), UP, ["alpha", "gamma"]) as lost:
        assert lost == {}
        assert (log[0], sorted(log[1:])) == ("beta", ["alpha", "gamma"])
    assert all(ways[name].freed for name in log)
    words = ways["beta"].argv[4:]
    assert words[:4] == [str(tmp_path / "saf-1"), UP.line, "60", "py"]
    assert words[4:] == [".saf-env/studio/.saf/owner", "saf-1", f"{who()}:/project"]


def test_the_other_is_told_and_holds_nothing(tmp_path: Path) -> None:
    free, held = Way(), Way("busy 1012 1000 77 ab root@delta up")
    folder = tmp_path / "saf-1"
    made = hosts(folder, {"here": Way(), "beta": held, "gamma": free}, "here")
    with (
        pytest.raises(BusyError, match=r"\(up, started 12 s ago by root@delta\) .* on beta"),
        hold(made, UP, ["here", "beta", "gamma"]),
    ):
        pass
    assert free.freed
    assert held.freed
    assert not folder.exists()


def test_where_the_head_is_held_no_other_host_is_asked(tmp_path: Path) -> None:
    log: list[str] = []
    made = hosts(tmp_path, {"alpha": Way(log=log), "beta": Way("busy 1012 ", log)})
    with pytest.raises(BusyError, match="another saf-env is working"), hold(made, UP, ["alpha"]):
        pass
    assert log == ["beta"]


def test_two_hosts_may_be_one_machine(tmp_path: Path) -> None:
    ways = {"beta": Way(), "gamma": Way(f"busy 1012 1012 77 {UP.line}")}
    with hold(hosts(tmp_path, ways), UP, ["gamma"]) as lost:
        assert lost == {}


def test_hosts_that_are_lost_are_told_and_the_others_are_held(tmp_path: Path) -> None:
    way = Way()
    made = hosts(tmp_path, {"alpha": way, "gamma": Way(LOST)}, "")
    with hold(made, DOWN, ["alpha", "gamma"]) as lost:
        assert lost == {"gamma": LOST}
        made.give_up(lost)
        assert made.ask(["gamma"], lambda _: "an answer") == ({}, {"gamma": LOST})
    assert way.freed
    assert way.argv[-3] == "", "what only stops claims no folder"


def test_another_clusters_folder_is_refused(tmp_path: Path) -> None:
    made = hosts(tmp_path, {"beta": Way("taken saf-2 anna@alpha:/home/anna")})
    with pytest.raises(BringUpError, match="belongs to another cluster"), hold(made, UP, []):
        pass


def test_a_host_that_cannot_lock_stops_what_makes_and_not_what_stops(tmp_path: Path) -> None:
    made = hosts(tmp_path, {"beta": Way("unable there is no program for it")})
    with pytest.raises(BringUpError, match=r"beta: .* there is no program"), hold(made, UP, []):
        pass
    with hold(made, DOWN, []) as lost:
        assert lost == {}


# Lost in the middle


ENDED = "what held it has ended, as it does when it hears nothing for 60 s"
CUT = HostUnreachableError("beta: the connection was lost", hint="try again")


def three(folder: Path) -> tuple[Hosts, dict[str, Way]]:
    """The head's host is beta, which is another one."""
    ways = {"alpha": Way(), "beta": Way(), "gamma": Way()}
    return hosts(folder, ways), ways


def test_who_still_has_the_locks_goes_on(tmp_path: Path) -> None:
    made, ways = three(tmp_path)
    with hold(made, DOWN, ways):
        assert made.stop([], []) == (["alpha", "beta", "gamma"], {})
        assert made.stop(["gamma"], []) == (["gamma"], {})
    assert all(way.freed for way in ways.values())
    ways["beta"].end = "it is not asked any more"
    assert made.stop(["gamma"], []) == (["gamma"], {})


@pytest.mark.parametrize(("end", "why"), [("ended", ENDED), (CUT, CUT.message)])
def test_without_the_lock_of_the_heads_host_nothing_more_is_done_anywhere(
    tmp_path: Path, end: str | Exception, why: str
) -> None:
    made, ways = three(tmp_path)
    with hold(made, DOWN, ways):
        ways["beta"].end = end
        for _ in range(2):
            stopped, lost = made.stop([], [])
            assert (stopped, set(lost)) == ([], {"alpha", "beta", "gamma"})
            for name, error in lost.items():
                assert error.message == (
                    "beta: the lock of cluster studio is lost there, and another saf-env may be at "
                    f"work: {why}\nnodes of the cluster may still run on {name}"
                )
                assert error.hint == (
                    "see that this machine stays awake and reaches beta; then run `saf-env down` "
                    "again"
                )
    assert [way.stopped for way in ways.values()] == [0, 0, 0]


def test_without_that_of_another_host_nothing_more_is_done_there(tmp_path: Path) -> None:
    made, ways = three(tmp_path)
    with hold(made, UP, ways):
        ways["gamma"].end = "ended"
        stopped, lost = made.stop([], [])
        assert (stopped, set(lost)) == (["alpha", "beta"], {"gamma"})
        with pytest.raises(HostUnreachableError, match=r"gamma: the lock .* is lost") as told:
            made.held["gamma"]()
        assert told.value.hint.endswith("reaches gamma, and run the same command again")
    assert ways["gamma"].stopped == 0


@pytest.mark.parametrize("head", [Way("unable there is no program for it"), Way(LOST), Way("")])
def test_what_was_never_held_is_not_asked_for(tmp_path: Path, head: Way) -> None:
    """What is not lost there is stopped, also where the connection ends before the first word."""
    if not head.answer:
        head.end = CUT
    made = hosts(tmp_path, {"beta": head, "gamma": Way()})
    with hold(made, DOWN, ["beta", "gamma"]):
        assert made.stop([], []) == (["beta", "gamma"], {})

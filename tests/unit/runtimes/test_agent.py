"""Which processes are ours, from lists of processes, and what is done with files."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from saf_env.runtimes import agent
from saf_env.runtimes.agent import logs, macos_processes, ours, private_folder, set_link, tail

MARK = "saf-1/linux/run"


def process(pid: int, session: int, command: str = "x", mark: str = "") -> dict[str, Any]:
    return {"pid": pid, "session": session, "started": "1", "command": command, "mark": mark}


def found(everything: list[dict[str, Any]], *sessions: tuple[int, str, str, str]) -> dict[int, str]:
    return {p["pid"]: f"{p['node']}/{p['role']}" for p in ours(everything, "saf-1", sessions)}


def test_a_mark_makes_a_process_ours_and_so_does_the_session_of_one() -> None:
    everything = [
        process(10, 10, "/e/bin/python -m ray", MARK),
        process(11, 10, "/e/ray/raylet/raylet --x", MARK),
        process(12, 10, "/e/ray/gcs/gcs_server --x", MARK),
        process(13, 10, "ray::DashboardAgent"),
        process(14, 14, "/e/bin/python own session", MARK),
        process(20, 20, "bash"),
    ]

    assert found(everything) == {
        10: "linux/leader",
        11: "linux/raylet",
        12: "linux/gcs",
        13: "linux/other",
        14: "linux/leader",
    }


def test_other_clusters_are_not_ours() -> None:
    everything = [
        process(10, 10, mark="saf-2/linux/run"),
        process(11, 11, mark="saf-1"),
        process(12, 12, mark="saf-1/linux"),
        process(13, 13, mark="saf-11/linux/run"),
        process(14, 14, mark="x/saf-1/linux/run"),
    ]

    assert found(everything) == {}


def test_a_marked_process_in_somebodys_shell_is_ours_and_the_shell_is_not() -> None:
    everything = [process(10, 10, "bash"), process(11, 10, mark=MARK), process(12, 10, "vim")]

    assert set(found(everything)) == {11}


def test_the_session_outlives_its_leader() -> None:
    everything = [process(11, 10, "/e/raylet", MARK), process(12, 10, "ray::IDLE")]

    assert found(everything) == {11: "linux/raylet", 12: "linux/other"}


def test_recorded_sessions_find_workers_and_nothing_else() -> None:
    everything = [
        process(12, 10, "ray::IDLE"),
        process(13, 10, "/usr/sbin/daemon"),
        process(22, 20, "ray::IDLE"),
        process(20, 20, "/usr/bin/somebody"),
    ]

    recorded = ((10, "linux", "run", "5"), (20, "head", "run", "5"))
    assert found(everything, *recorded) == {12: "linux/other"}


def test_a_recorded_leader_is_ours_whatever_its_mark_says() -> None:
    # A project that was moved has another id; number and start time still name one process.
    leader, raylet = process(10, 10, "/e/python -m ray"), process(11, 10, "/e/raylet")
    recorded = (10, "linux", "run", leader["started"])
    assert found([leader, raylet], recorded) == {10: "linux/leader", 11: "linux/raylet"}

    reused = {**process(10, 10, "/e/python -m ray"), "started": "another"}
    assert found([reused, process(11, 10, "/e/raylet")], recorded) == {}


def test_who_outlives_its_whole_node_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a start that nobody recorded, the leader and the raylet tell whose the agent is."""
    alive = {
        10: process(10, 10, "/e/bin/python -m ray", MARK),
        11: process(11, 10, "/e/ray/raylet/raylet --x", MARK),
        12: process(12, 10, "ray::DashboardAgent"),
        20: process(20, 20, "ray::DashboardAgent"),
    }

    def kill(pid: int, number: int) -> None:
        if pid != 12 or number == signal.SIGKILL:
            del alive[pid]

    monkeypatch.setattr(agent, "processes", lambda: [dict(p) for p in alive.values()])
    monkeypatch.setattr(agent, "_started", lambda pid: "1" if pid in alive else "")
    monkeypatch.setattr(agent, "_is_rays", lambda p: p["pid"] == 11)
    monkeypatch.setattr(os, "kill", kill)
    request = {"cluster": "saf-1", "nodes": [], "sessions": [], "grace": 0.0, "head": False}
    done = agent.stop(request)
    assert done == {"stopped": ["linux"], "left": [], "services": []}
    assert alive.keys() == {20}


def test_macos_lists_variables_behind_the_command() -> None:
    text = (
        "    1 Sun Nov 22 10:00:00 2026     /sbin/launchd\n"
        " 4711 Mon Nov 23 21:02:03 2026     /e/raylet --a b HOME=/Users/x SAF_ENV_NODE=saf-1/h/r "
        "PATH=/bin\n"
        "   12 Sun Nov 22 10:00:00 2026     \n"
    )

    first, second, third = macos_processes(text)

    assert first["mark"] == third["command"] == ""
    assert second["pid"] == 4711
    assert second["started"] == "Mon Nov 23 21:02:03 2026"
    assert second["command"].startswith("/e/raylet --a b ")
    assert second["mark"] == "saf-1/h/r"


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "saf-1"

    private_folder(str(folder))
    folder.chmod(0o777)
    private_folder(str(folder))

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_somebody_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")

    for name in ("link", "file"):
        with pytest.raises(PermissionError, match="not a folder of this user"):
            private_folder(str(tmp_path / name))


def test_a_link_follows_its_target(tmp_path: Path) -> None:
    link = tmp_path / "envs" / "base"
    for target in ("one", "two", "two"):
        set_link(str(link), str(tmp_path / target))
        assert os.readlink(link) == str(tmp_path / target)
    assert [p.name for p in link.parent.iterdir()] == ["base"]


def request(folder: Path, **offsets: int) -> dict[str, Any]:
    return {
        "folders": [str(folder)],
        "files": [str(folder / "none.log")],
        "offsets": {str(folder / f"{name}.log"): n for name, n in offsets.items()},
        "limit": 1000,
    }


def test_logs_go_on_where_they_were_left(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo\n")
    (tmp_path / "a.txt").write_text("no log")

    assert logs(request(tmp_path))["texts"] == {str(log): "one\ntwo\n"}
    assert logs(request(tmp_path, a=4)) == {
        "texts": {str(log): "two\n"},
        "offsets": {str(log): 8},
    }
    assert logs(request(tmp_path, a=8))["texts"] == {}


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("new\n")

    assert logs(request(tmp_path, a=100))["texts"] == {str(log): "new\n"}


def test_a_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("whole\nhal")

    assert logs(request(tmp_path)) == {
        "texts": {str(log): "whole\n"},
        "offsets": {str(log): 6},
    }


def test_of_a_big_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 5000 + "\nend\n")

    assert len(logs(request(tmp_path))["texts"][str(log)]) == 1000
    assert tail(str(log)).endswith("\nend\n")
    assert tail(str(tmp_path / "none")) == ""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hosts file with a line of the system and one of another cluster."""
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n10.0.0.1 a.b.saf # saf-env saf-11\n")
    monkeypatch.setattr(agent, "HOSTS", str(path))
    return path


LINES = ["127.0.0.2 a.c.saf # saf-env saf-1", "127.0.0.2 b.c.saf # saf-env saf-1"]


def write_names(*lines: str) -> tuple[bool, str]:
    answer = agent.names({"cluster": "saf-1", "lines": list(lines), "look": False})
    return answer["changed"], answer["refused"]


def test_names_are_written_once_and_removed_without_a_trace(hosts: Path) -> None:
    before, mode = hosts.read_text(), hosts.stat().st_mode
    assert write_names() == (False, "")
    assert write_names(*LINES) == (True, "")
    assert hosts.read_text() == before + "\n".join(LINES) + "\n"
    with hosts.open("a") as file:
        file.write("10.0.0.2 later\n")
    assert write_names(*LINES) == (False, "")
    assert write_names(LINES[0]) == (True, "")
    assert write_names() == (True, "")
    assert hosts.read_text() == before + "10.0.0.2 later\n"
    assert hosts.stat().st_mode == mode
    assert [p.name for p in hosts.parent.iterdir()] == ["hosts"]


def test_a_last_line_without_an_end_is_kept_apart(hosts: Path) -> None:
    hosts.write_bytes(b"127.0.0.1 localhost")
    assert write_names(LINES[0]) == (True, "")
    assert hosts.read_text() == f"127.0.0.1 localhost\n{LINES[0]}\n"


def test_what_others_wrote_in_another_encoding_stays_as_it_is(hosts: Path) -> None:
    before = b"10.0.0.3 caf\xe9 # \xff\r\n"
    hosts.write_bytes(before)
    assert write_names() == (False, "")
    assert write_names(*LINES) == (True, "")
    assert hosts.read_bytes().startswith(before)
    assert write_names() == (True, "")
    assert hosts.read_bytes() == before


@pytest.mark.parametrize("code", [errno.EPERM, errno.EROFS, errno.ENOSPC])
def test_names_that_cannot_be_written_are_refused_with_the_reason(
    hosts: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    before = hosts.read_text()
    monkeypatch.setattr(os, "replace", fails)
    assert write_names(*LINES) == (False, os.strerror(code))
    assert hosts.read_text() == before
    assert [p.name for p in hosts.parent.iterdir()] == ["hosts"]


def test_a_hosts_file_that_is_mounted_is_written_in_place(
    hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    before, inode = hosts.read_text(), hosts.stat().st_ino
    monkeypatch.setattr(os, "replace", busy)
    assert write_names(*LINES) == (True, "")
    assert write_names() == (True, "")
    assert (hosts.read_text(), hosts.stat().st_ino) == (before, inode)


def test_a_mac_is_kept_awake_as_long_as_the_leader_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.keeping_awake("linux", 7) == []
    monkeypatch.setattr(agent, "CAFFEINATE", "/bin/sh")  # a program that is there
    assert agent.keeping_awake("linux", 7) == []
    assert agent.keeping_awake("darwin", 7) == ["/bin/sh", "-ims", "-w", "7"]
    monkeypatch.setattr(agent, "CAFFEINATE", "/no/caffeinate")
    assert agent.keeping_awake("darwin", 7) == []


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Services of two nodes in ``tmp_path``; what their manager is asked."""
    for node in ("head", "linux"):
        (tmp_path / node).mkdir()
        temp = {"temp": "/tmp/saf-1", "node": {"role": "head" if node == "head" else "worker"}}
        note = {**temp, "stop": [["stop", node]], "start": [["start", node]]}
        (tmp_path / node / agent.SERVICE).write_text(json.dumps(note), encoding="utf-8")
    asked: list[list[str]] = []
    monkeypatch.setattr(agent, "_manage", asked.extend)
    monkeypatch.setattr(agent, "processes", list)
    return asked


@pytest.mark.parametrize(("names", "ended"), [([], ["linux", "head"]), (["linux"], ["linux"])])
def test_services_are_ended_with_their_nodes(
    tmp_path: Path, managed: list[list[str]], names: list[str], ended: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    request = {
        "cluster": "saf-1",
        "nodes": names,
        "sessions": [],
        "grace": 0,
        "head": False,
        "services": str(tmp_path),
    }
    assert agent.stop(request) == {"stopped": [], "left": [], "services": ended}
    assert managed == [["stop", name] for name in ended]
    assert agent.stop({**request, "services": str(tmp_path / "none")})["services"] == []
    # Another cluster of the same name has its services in the same folder.
    assert agent.stop({**request, "cluster": "saf-2"})["services"] == []
    assert managed == [["stop", name] for name in ended]


def test_services_are_ended_side_by_side_and_the_heads_last(
    tmp_path: Path, managed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    note = json.loads((tmp_path / "linux" / agent.SERVICE).read_text(encoding="utf-8"))
    (tmp_path / "other").mkdir()
    note["stop"] = [["stop", "other"]]
    (tmp_path / "other" / agent.SERVICE).write_text(json.dumps(note), encoding="utf-8")
    together, done = threading.Barrier(2), list[str]()

    def manage(commands: list[list[str]]) -> None:
        ((_, node),) = commands
        if node != "head":
            together.wait(10)
        done.append(node)

    monkeypatch.setattr(agent, "_manage", manage)
    assert agent._end_services(str(tmp_path), [], "saf-1") == ["linux", "other", "head"]
    assert sorted(done[:2]) == ["linux", "other"]
    assert done[2] == "head"


def test_a_manager_that_is_silent_is_told(
    tmp_path: Path, managed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def manage(commands: list[list[str]]) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "systemctl is silent", "systemctl")

    monkeypatch.setattr(agent, "_manage", manage)
    with pytest.raises(TimeoutError, match="systemctl is silent"):
        agent._end_services(str(tmp_path), [], "saf-1")


def test_who_ends_a_service_waits_for_its_end(
    tmp_path: Path, managed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"pid": 7, "started": "1"}
    (tmp_path / "linux" / agent.RUNNING).write_text(json.dumps(running), encoding="utf-8")
    looks = iter([True, True, False])
    monkeypatch.setattr(agent, "alive", lambda process: process == running and next(looks))
    agent._end_service(agent._service(str(tmp_path / "linux")))
    assert list(looks) == []
    assert managed == [["stop", "linux"]]


def test_a_damaged_note_is_no_service(tmp_path: Path) -> None:
    (tmp_path / agent.SERVICE).write_text("{", encoding="utf-8")
    assert agent._service(str(tmp_path)) == {}
    assert agent._service("") == {}

"""What managers of services are asked by the scripts, in a world where they only write it down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from saf_env.cluster import managers
from saf_env.cluster.hosts import Host
from saf_env.cluster.managers import Launchd, Login, Systemd
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import BringUpError
from saf_env.plan.model import HostPlan
from saf_env.transports.local import LocalTransport

# Each notes what it is asked. A unit's state is in `state`; launchd knows an agent that has one,
# and what it is told to end is there for one more look. Once there is lingering, systemd's manager
# answers after as many seconds as `slow` says.
SYSTEMCTL = """\
shift
case $1 in
    show)
        if [ "$2" = --property=ActiveState ]; then cat state; exit; fi
        [ ! -e lingers ] || [ "$(cat slept 2>/dev/null | wc -l)" -lt "$(cat slow)" ] || exit 0
        echo 'Failed to connect to bus' >&2
        exit 1 ;;
    stop) [ -e released ] && echo "$1, released" >>asked; echo inactive >state; exit ;;
esac
echo "$1" >>asked
"""
LAUNCHCTL = """\
case $1 in
    print)
        [ -e state ] || exit 113
        printf 'x = {\\n\\tstate = %s\\n}\\n' "$(cat state)"
        [ ! -e ending ] || rm state ending
        exit ;;
    bootout) touch ending; [ -e released ] && echo "$1, released" >>asked; exit 36 ;;
esac
[ ! -e state ] || exit 5
echo "$1" >>asked
"""
LOGINCTL = "touch lingers\n"
SLEEP = 'echo "$1" >>slept\n'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose managers are those above, and whose seconds are short."""
    programs = tmp_path / "bin"
    programs.mkdir()
    texts = {"systemctl": SYSTEMCTL, "launchctl": LAUNCHCTL, "sleep": SLEEP, "loginctl": LOGINCTL}
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(managers, "_PATH", {"PATH": f"{programs}:/usr/bin:/bin"})
    monkeypatch.chdir(tmp_path)
    plan = HostPlan("beta", "100.64.0.2", "linux-x86_64", "beta", None, Path(".saf-env/local"))
    none = cast(Runtimes, None)
    return Host(plan, LocalTransport("beta"), none, cast(Engine, None), Path("python"))


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@pytest.mark.parametrize(("seconds", "answers"), [(0, True), (3, True), (10, True), (11, False)])
def test_the_manager_of_who_did_not_linger_is_waited_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, answers: bool
) -> None:
    (tmp_path / "slow").write_text(f"{seconds}", encoding="utf-8")
    script = Systemd._PREPARE
    for folder in ("/run/systemd/system", "/var/lib/systemd/linger"):
        assert folder in script
        script = script.replace(folder, str(tmp_path))
    monkeypatch.setattr(Systemd, "_PREPARE", script)
    user = Login(1000, "anna", Path("/home/anna"))
    if answers:
        Systemd().prepare(host, user, "linux")
    else:
        with pytest.raises(BringUpError, match="no systemd user manager answers there"):
            Systemd().prepare(host, user, "linux")
    slept = tmp_path / "slept"
    waited = len(slept.read_text(encoding="utf-8").split()) if slept.exists() else 0
    assert waited == min(seconds, 10)


WORKS = ["stop, released"]


@pytest.mark.parametrize(
    ("state", "start", "told"),
    [
        ("inactive", False, []),
        ("inactive", True, ["start"]),
        ("failed", False, []),
        ("active", False, [*WORKS, "start"]),
        ("active", True, [*WORKS, "start"]),
        ("activating", False, [*WORKS, "start"]),
    ],
)
def test_a_unit_that_is_at_work_is_started_anew_without_its_node(
    host: Host, tmp_path: Path, state: str, start: bool, told: list[str]
) -> None:
    (tmp_path / "state").write_text(f"{state}\n", encoding="utf-8")
    if state == "inactive":
        (tmp_path / "released").touch()  # as a removal that was cut off leaves it
    assert Systemd().enable(host, "unit", str(tmp_path), start=start).ok
    said = [word for word in asked(tmp_path) if word.partition(",")[0] in ("stop", "start")]
    assert said == told
    assert {"daemon-reload", "enable", "reset-failed"} <= {*asked(tmp_path)}
    assert not (tmp_path / "released").exists()


@pytest.mark.parametrize(
    ("state", "start", "told"),
    [
        ("", False, []),
        ("", True, ["bootstrap"]),
        ("not running", False, ["bootout, released"]),
        ("not running", True, ["bootout, released", "bootstrap"]),
        ("running", False, ["bootout, released", "bootstrap"]),
        ("spawn scheduled", False, ["bootout, released", "bootstrap"]),
        ("not running\n\tlast exit code = 0", False, ["bootout, released"]),
        ("not running\n\tlast exit code = 1", False, ["bootout, released", "bootstrap"]),
    ],
)
def test_an_agent_that_is_at_work_is_loaded_anew_without_its_node(
    host: Host, tmp_path: Path, state: str, start: bool, told: list[str]
) -> None:
    if state:
        (tmp_path / "state").write_text(state, encoding="utf-8")
    assert Launchd().enable(host, "agent", str(tmp_path), start=start).ok
    assert asked(tmp_path) == told
    assert (tmp_path / "slept").exists() == bool(state), "it is waited for"
    assert not (tmp_path / "released").exists()


def test_an_agent_that_has_given_up_is_told_until_it_is_unloaded(
    host: Host, tmp_path: Path
) -> None:
    def state() -> str:
        return Launchd().status(host, "agent", str(tmp_path))

    (tmp_path / "state").write_text("not running", encoding="utf-8")
    assert state() == "inactive"
    (tmp_path / "given-up").touch()
    assert state() == "failed"
    (tmp_path / "state").unlink()
    assert state() == "inactive", "the next login tries again"
    (tmp_path / "state").write_text("not running", encoding="utf-8")
    assert Launchd().enable(host, "agent", str(tmp_path), start=False).ok
    assert not (tmp_path / "given-up").exists()


def test_what_cannot_be_released_is_not_ended(host: Host, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("active", encoding="utf-8")
    enables: list[Callable[..., object]] = [Systemd().enable, Launchd().enable]
    for enable in enables:
        enable(host, "unit", str(tmp_path / "none"), start=True)
    assert (tmp_path / "state").read_text(encoding="utf-8") == "active"
    assert not {"start", "bootstrap"} & {*asked(tmp_path)}

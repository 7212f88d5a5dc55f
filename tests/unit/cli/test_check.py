"""``saf-env check``: what is printed, what is handed on to be mended, and the exit code."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest

from saf_env.cli import main
from saf_env.cli.commands import check
from saf_env.cli.context import Context
from saf_env.cluster import fix as cluster_fix
from saf_env.cluster import gate
from saf_env.errors import HostUnreachableError, SafEnvError
from saf_env.preflight import base
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import CHECKS, explained

UNJUDGED = Finding("temp-dir", "head", "skip", "could not be judged", "PermissionError: /tmp/x")


def run(
    found: list[Finding] | Callable[[], list[Finding]],
    monkeypatch: pytest.MonkeyPatch,
    **options: Any,
) -> int:
    """The exit code of ``saf-env check`` when ``found`` is what it finds."""

    def nothing(*_: object) -> None:
        """Every name is known, every node can be run."""

    monkeypatch.setattr(gate, "check", lambda *_, **__: found() if callable(found) else found)
    context = SimpleNamespace(
        refuse_unknown=nothing,
        refuse_unsupported=nothing,
        plan_anew=nothing,
        nodes=lambda _: (),
        home=None,
        file=None,
    )
    monkeypatch.setattr(check, "Context", lambda *_: context)
    wanted: dict[str, Any] = {
        **dict.fromkeys(("deep", "fix", "json", "watch"), False),
        "nodes": [],
        "only": [],
        "ignore": [],
        "explain": None,
        "interval": 1.0,
    }
    return check.run(cast(Context, context), argparse.Namespace(**{**wanted, **options}))


@pytest.mark.parametrize(
    ("level", "verdict", "code"),
    [("ok", "may join", 0), ("warn", "may join", 0), ("fail", "may not join", 4)],
)
def test_the_verdict(
    level: Any,
    verdict: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([Finding("platform", "head", level, "so")], monkeypatch) == code
    assert f"head: {verdict} (1 {level})" in capsys.readouterr().out


def test_a_requirement_that_cannot_be_judged_is_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([UNJUDGED], monkeypatch) == 4
    told = capsys.readouterr().out
    assert "PermissionError: /tmp/x" in told
    assert "--ignore temp-dir" in told
    assert "head: may not join (1 skip)" in told
    assert run([UNJUDGED], monkeypatch, json=True) == 4
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_wish_that_cannot_be_judged_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run([Finding("shm", "head", "skip", "could not be judged", "?")], monkeypatch) == 0


def test_fix_leaves_alone_what_is_ignored_and_then_looks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token, disk = (Finding(name, "head", "fail", "wrong") for name in ("token", "disk"))
    found, handed = [token, disk], list[Finding]()

    def mend(*arguments: Any) -> None:
        handed.extend(arguments[2])
        arguments[4]("mended")
        found.remove(token)

    monkeypatch.setattr(cluster_fix, "fix", mend)
    assert run(found, monkeypatch, fix=True, json=True, ignore=["disk"]) == 4

    assert handed == [token]
    printed = capsys.readouterr()
    assert printed.err == "saf-env: mended\n"
    assert [f["id"] for f in json.loads(printed.out)["findings"]] == ["disk"]


def test_a_reason_that_is_told_is_not_told_by_every_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "beta: its host key is not known"
    found = [
        Finding("ssh-host-key", "beta", "fail", "the host key is not known", told, "trust it"),
        *(Finding(name, "beta", "skip", "could not be judged", told) for name in ("shm", "disk")),
        Finding("shm", "head", "skip", "could not be judged", "another reason"),
    ]
    assert run(found, monkeypatch) == 4
    printed = capsys.readouterr().out
    assert printed.count(told) == 1
    assert "remedy: trust it" in printed
    assert "another reason" in printed
    assert "may not join (1 fail, 3 skip)" in printed


def test_a_check_is_explained_without_a_cluster_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for one in CHECKS:
        assert main(["check", "--explain", one.id, "--project", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert max(map(len, told.splitlines())) <= 40
        words = " ".join(told.split())
        assert words.startswith(f"{one.id}: {one.title}")
        assert all(" ".join(part.split()) in words for part in explained(one))


def test_a_check_that_is_not_known_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--explain", "port-free", "--project", str(tmp_path)]) == 2
    assert "did you mean 'ports-free'?" in capsys.readouterr().err


def watched(
    rounds: list[list[Finding] | SafEnvError], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> int:
    """The exit code of ``--watch`` that is interrupted after ``rounds``."""
    left = list(rounds)

    def found() -> list[Finding]:
        if not left:
            raise KeyboardInterrupt
        now = left.pop(0)
        if isinstance(now, SafEnvError):
            raise now
        return now

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "strftime", lambda _: "12:00:00")
    return run(found, monkeypatch, watch=True, **options)


GOOD = Finding("token", "head", "ok", "present")
BAD = Finding("token", "head", "fail", "others may read the token", "mode 0644", "chmod 600 it")
LOST = HostUnreachableError("beta does not answer", hint="switch it on")


def test_what_changes_is_told_and_the_last_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(BAD, evidence="mode 0664")  # what varies in it is not worth a line
    rounds: list[list[Finding] | SafEnvError] = [[GOOD], [GOOD], [BAD], [other], [GOOD], [BAD]]
    assert watched(rounds, monkeypatch) == 4
    lost = [
        "12:00:00 head: fail token: others may read the token: mode 0644",
        "12:00:00 head: may not join (1 fail)",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "12:00:00 head: may join (1 ok)",
        *lost,
        "12:00:00 head: ok token: present",
        "12:00:00 head: may join (1 ok)",
        *lost,
    ]
    assert watched([[BAD], [GOOD]], monkeypatch) == 0


def test_a_host_that_is_lost_meanwhile_does_not_end_a_watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watched([[GOOD], LOST, LOST], monkeypatch) == 5
    told = capsys.readouterr()
    assert told.err == "saf-env: beta does not answer\n  what to do: switch it on\n"
    assert watched([LOST, [GOOD]], monkeypatch) == 0


def test_a_watch_that_saw_nothing_yet_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        watched([], monkeypatch)


def test_a_watch_in_json_is_one_document_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads((Path(base.__file__).parents[1] / "schemas" / "check.json").read_text())
    assert watched([[GOOD], LOST, [GOOD], [BAD]], monkeypatch, json=True) == 4
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["ok"] for document in documents] == [True, True, False]
    for document in documents:
        jsonschema.validate(document, schema)


def test_a_terminal_is_redrawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert watched([[BAD], [GOOD]], monkeypatch) == 0
    _, first, second = capsys.readouterr().out.split("\x1b[H\x1b[J")
    assert "remedy: chmod 600 it" in first
    assert second == "head: may join (1 ok)\nat 12:00:00, again after 1 s; Ctrl-C ends\n"

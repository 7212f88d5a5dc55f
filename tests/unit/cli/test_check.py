"""``saf-env check``: what is printed, what is mended, and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cli import fix
from saf_env.cli.commands import check
from saf_env.cli.context import Context
from saf_env.cli.output import Progress
from saf_env.cluster.token import ensure_token
from saf_env.plan.build import token_path
from saf_env.preflight.base import Finding

UNJUDGED = Finding("temp-dir", "head", "skip", "could not be judged", "PermissionError: /tmp/x")


def run(found: list[Finding], monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """The exit code of ``saf-env check`` when ``found`` is what it finds."""

    def nothing(*_: object) -> None:
        """Every name is known, every node can be run."""

    monkeypatch.setattr(check, "_judged", lambda *_: found)
    context = SimpleNamespace(
        refuse_unknown=nothing, refuse_unsupported=nothing, nodes=lambda _: ()
    )
    wanted = {"nodes": [], "only": [], "ignore": [], "fix": False, "json": False, **options}
    return check.run(cast(Context, context), argparse.Namespace(**wanted))


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


class Project:
    """As much of a context as mending a token needs."""

    def __init__(self, home: Path, *, running: bool) -> None:
        self.home = home
        self.plan = SimpleNamespace(name="local")
        self._found = ["a process"] if running else []

    def runtime(self) -> Any:
        return SimpleNamespace(find=lambda _: self._found)


@pytest.mark.parametrize("running", [False, True])
def test_fix_says_what_it_did_with_an_empty_token(tmp_path: Path, running: bool) -> None:
    ensure_token(tmp_path, "local")
    path = token_path(tmp_path, "local")
    path.write_text("")

    context = cast(Context, Project(tmp_path, running=running))
    found = Finding("token", "head", "fail", "the token cannot be used")
    (told,) = fix.fix(context, (), [found], Progress())

    assert "it is empty" in told
    assert ("left the token" in told) is running
    assert (path.read_text() == "") is running

"""``saf-env check``: what is printed, what is handed on to be mended, and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cli import main
from saf_env.cli.commands import check
from saf_env.cli.context import Context
from saf_env.cluster import fix as cluster_fix
from saf_env.cluster import gate
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import CHECKS, explained

UNJUDGED = Finding("temp-dir", "head", "skip", "could not be judged", "PermissionError: /tmp/x")


def run(found: list[Finding], monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """The exit code of ``saf-env check`` when ``found`` is what it finds."""

    def nothing(*_: object) -> None:
        """Every name is known, every node can be run."""

    monkeypatch.setattr(gate, "check", lambda *_, **__: found)
    context = SimpleNamespace(
        refuse_unknown=nothing,
        refuse_unsupported=nothing,
        plan_anew=nothing,
        nodes=lambda _: (),
    )
    wanted: dict[str, Any] = {
        **dict.fromkeys(("deep", "fix", "json"), False),
        "nodes": [],
        "only": [],
        "ignore": [],
        "explain": None,
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
    assert "ssh-host-key on beta: trust it" in printed
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

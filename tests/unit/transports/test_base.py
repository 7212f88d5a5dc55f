"""What a finished command tells."""

from __future__ import annotations

from saf_env.transports.base import CommandResult


def result(code: int = 0, stdout: str = "", stderr: str = "") -> CommandResult:
    return CommandResult(("x",), "here", code, stdout, stderr, 0.1)


def test_only_zero_is_ok() -> None:
    assert result(0).ok
    assert not result(1).ok
    assert not result(-9).ok


def test_the_tail_is_what_was_complained_about() -> None:
    assert result(stdout="a\nb\n").tail() == "a\nb"
    assert result(stdout="a\n", stderr="c\nd\ne\n").tail(2) == "d\ne"
    assert result(stderr=" \n").tail() == ""

"""The table: plain where it must be, safe always."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from saf_env.report.model import Outcome, Report
from saf_env.report.terminal import draw

RIGHT = Outcome(
    "pi", "head", "right", 2.51, figure=345.4, unit="Msamples/s", limit=350.0, share=0.987
)
WRONG = Outcome("matmul", "head", "wrong", 1.0, message="stage verify: 3 elements are not exact")
REPORT = Report(
    run="20260801-121314-000000",
    cluster="local",
    started="2026-08-01T12:13:14+00:00",
    seconds=43.2,
    verdict="failed",
    nodes=(),
    outcomes=(RIGHT, WRONG),
    environment={},
)


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def drawn(report: Report, width: int | None = None) -> str:
    file = io.StringIO()
    draw(report, file=file, width=width)
    return file.getvalue()


def test_the_table() -> None:
    assert drawn(REPORT).splitlines() == [
        "workload  node  answer          figure  of limit  seconds",
        "pi        head  right   345 Msamples/s      0.99      2.5",
        "matmul    head  wrong                                 1.0",
        "",
        "matmul on head: wrong",
        "stage verify: 3 elements are not exact",
        "",
        "failed: 1 of 2 right on cluster local, 43 s, run 20260801-121314-000000",
    ]


def test_a_reason_that_several_share_is_told_once() -> None:
    lost = [Outcome(w, "linux", "error", 0.0, message="the node is gone") for w in ("pi", "matmul")]
    text = drawn(replace(REPORT, outcomes=tuple(lost)))
    assert "pi on linux, matmul on linux: error\nthe node is gone\n" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(WRONG, node="n" * 63, message="long " * 100)
    text = drawn(replace(REPORT, outcomes=(RIGHT, long)), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "wrong" in text.split()


def test_text_from_nodes_is_shown_and_not_obeyed() -> None:
    evil = replace(WRONG, message="\x1b]0;title\x07\x1b[2J [bold red]:smile:", workload="a\x1b[2Jb")
    text = drawn(replace(REPORT, outcomes=(evil,), cluster="\x1b[1m"))
    assert "\x1b" not in text
    assert r"\x1b]0;title\x07\x1b[2J [bold red]:smile:" in text


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    draw(REPORT, file=screen)
    assert "\x1b[32m" in screen.getvalue()
    assert "\x1b" not in drawn(REPORT)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    draw(REPORT, file=screen)
    assert "\x1b[32m" not in screen.getvalue()

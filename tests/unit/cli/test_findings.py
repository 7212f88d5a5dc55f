"""Findings as lines: by area, worst first, in any width, without what a terminal acts on."""

from __future__ import annotations

import pytest

from saf_env.cli import findings
from saf_env.preflight.base import Finding

FULL = [
    Finding("disk", name, "warn", "a disk is full", "1 GiB free", "free space on it")
    for name in ("head", "linux")
]
OPEN = Finding("token", "head", "fail", "others may read the token", "mode 0644", "chmod 600 it")
CLOCK = Finding("clock", "linux", "skip", "could not be judged", "the probe did not look")
FINE = Finding("platform", "head", "ok", "linux-x86_64")
ALL = [FINE, *FULL, CLOCK, OPEN]


def texts(found: list[Finding], width: int) -> list[str]:
    return [line.text for line in findings.lines(found, width)]


def test_areas_and_findings_come_worst_first_with_the_remedy_below() -> None:
    assert texts(ALL, 80) == [
        "security",
        "  fail  token  head         others may read the token: mode 0644",
        "                            remedy: chmod 600 it",
        "system",
        "  warn  disk   head, linux  a disk is full: 1 GiB free",
        "                            remedy: free space on it",
        "  skip  clock  linux        could not be judged: the probe did not look",
        "                            remedy: what cannot be judged stops a join; --ignore",
        "                            clock does without",
    ]


def test_a_narrow_terminal_has_the_text_below() -> None:
    assert texts([OPEN], 40) == [
        "security",
        "  fail token on head",
        "    others may read the token: mode 0644",
        "    remedy: chmod 600 it",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    far = Finding("packages-intact", "head", "fail", "changed", "/" + "x" * 200, "`a --b-c` " * 20)
    many = [Finding("disk", f"node-{i}", "warn", "a disk is full") for i in range(16)]
    shown = texts([far, *many], width)
    assert max(map(len, shown)) <= width
    assert "".join("".join(shown).split()).count("x") >= 200
    words = " ".join(" ".join(shown).split())
    assert "16 nodes" in words
    assert width < 40 or all(f"node-{i}" in words for i in range(16))


def test_nothing_reaches_the_terminal_that_it_would_act_on() -> None:
    odd = Finding("disk", "head", "warn", "a\x1b[2Jb\nc", "[bold]d[/bold]\x07", "e\tf")
    assert texts([odd], 80)[1:] == [
        "  warn  disk  head  ab c: [bold]d[/bold]?",
        "                    remedy: e f",
    ]


def test_colours_are_for_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    findings.show(ALL)
    plain = capsys.readouterr().out
    assert plain.splitlines()[:-1] == texts(ALL, 80)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    findings.show(ALL)
    assert "  \x1b[1;31mfail\x1b[0m  token" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    findings.show(ALL)
    assert "\x1b[1;31m" not in capsys.readouterr().out

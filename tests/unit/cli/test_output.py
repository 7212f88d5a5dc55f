"""What is printed: nothing that a terminal acts on, tables that fit, silence where nobody looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.cli.output import Progress, print_table, printable


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in printable(text))


def test_colours_are_taken_out_and_words_are_kept() -> None:
    assert printable("\x1b[1;31mred\x1b[0m\tword\x07") == "red word?"


def test_a_table_shows_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["node", "state"], [["head", "ready"], ["[b]odd[/b]", "dead"]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["head", "ready"] in lines
    assert ["[b]odd[/b]", "dead"] in lines


def test_a_table_fits_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(["a", "b", "c"], [["x" * 30, "y" * 30, "z" * 30]])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 40
    assert out.count("x") == out.count("y") == out.count("z") == 30


def test_progress_is_silent_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.step("working")
        progress.notice("this is kept")
    assert capsys.readouterr().err == "saf-env: this is kept\n"

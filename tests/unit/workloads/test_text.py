"""Text from nodes cannot command the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.workloads.text import figure_text, one_line, printable


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert all(c == "\n" or c.isprintable() for c in printable(text))
    assert one_line(text).isprintable()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=100))
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == text


def test_an_escape_is_shown() -> None:
    assert printable("\x1b[2Jgone\u202e") == r"\x1b[2Jgone\u202e"


def test_long_text_is_cut_and_says_so() -> None:
    assert printable("a" * 12, limit=10) == "a" * 10 + " ... (2 more)"


@pytest.mark.parametrize(
    ("figure", "text"),
    [(345.4, "345 GB/s"), (34.54, "34.5 GB/s"), (0.987, "0.99 GB/s"), (12345.6, "12,346 GB/s")],
)
def test_figures_have_three_digits(figure: float, text: str) -> None:
    assert figure_text(figure, "GB/s") == text

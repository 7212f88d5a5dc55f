"""Text from nodes, made safe to print."""

from __future__ import annotations


def printable(text: str, limit: int = 2000) -> str:
    r"""``text`` with every character that a terminal could obey shown as its escape (``\x1b``).

    Newlines stay. Characters past ``limit`` are left out, and the text says so.
    """
    cut = text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} more)"
    return "".join(c if c == "\n" or c.isprintable() else _escape(c) for c in cut)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str, limit: int = 300) -> str:
    """``text`` on one line, safe to print, at most about ``limit`` characters."""
    return printable(" ".join(text.split()), limit)


def figure_text(figure: float, unit: str) -> str:
    """A figure with three significant digits and its unit, such as ``345 Msamples/s``."""
    digits = 0 if abs(figure) >= 100 else 1 if abs(figure) >= 10 else 2
    return f"{figure:,.{digits}f} {unit}"

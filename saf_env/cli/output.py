"""What commands print: progress and notices on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from saf_env.errors import SafEnvError

WIDTH_OF_A_PIPE = 120
"""Columns of a table when nothing tells how wide the reader is."""


_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
"""ANSI escape sequences (ECMA-48, 5.4): colours and movements of the cursor."""


def printable(text: str) -> str:
    """``text`` without anything that a terminal would act on; line breaks are kept."""
    plain = _ESCAPES.sub("", text).replace("\t", " ")
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in plain)


def columns() -> int:
    """How wide the reader is: the terminal, or what ``COLUMNS`` says."""
    import shutil

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return shutil.get_terminal_size().columns if known else WIDTH_OF_A_PIPE


def console() -> Console:
    """A console on stdout: plain text when it is not a terminal, or with ``NO_COLOR``."""
    from rich.console import Console

    return Console(width=columns(), highlight=False, soft_wrap=False)


def print_json(value: object) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=2, sort_keys=False))


def explanation(error: SafEnvError) -> str:
    """What happened, and what to do about it, as lines."""
    lines = [f"saf-env: {printable(str(error))}"]
    lines += [f"  {printable(mistake)}" for mistake in getattr(error, "mistakes", ())]
    if error.hint:
        lines.append(f"  what to do: {printable(error.hint)}")
    return "\n".join(lines)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal at most; long cells are folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_styled(Text(printable(cell))) for cell in row))
    console().print(table)


STYLES = {
    "ok": "green",
    "ready": "green",
    "warn": "yellow",
    "starting": "yellow",
    "fail": "bold red",
    "dead": "bold red",
    "drifted": "bold red",
    "skip": "dim",
    "absent": "dim",
}


def _styled(text: Any) -> Any:
    if style := STYLES.get(text.plain):
        text.stylize(style)
    return text


class Progress:
    """What is going on, on a terminal; nothing elsewhere. Notices are always shown.

    Used as a context manager, so that the line is gone when results are printed.
    """

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def step(self, text: str) -> None:
        """Say what is being done now; replaces the step before."""
        if not sys.stderr.isatty():
            return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("")
            self._status.start()
        self._status.update(printable(text).replace("[", r"\["))

    def notice(self, text: str) -> None:
        """Tell the user something that stays on the screen."""
        self.clear()
        print(f"saf-env: {printable(text)}", file=sys.stderr)

    def clear(self) -> None:
        """Take the progress line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

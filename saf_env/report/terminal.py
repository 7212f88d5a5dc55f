"""The outcomes of a run as a table for the terminal."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

from saf_env.report.model import Outcome, Report
from saf_env.workloads.text import figure_text, one_line, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 80  # where there is no terminal to ask
NARROW = 60  # below, only the answers are shown
STYLES = {"right": "green", "wrong": "bold red", "error": "red", "ok": "green", "failed": "red"}


def draw(report: Report, *, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print ``report``: the table, what went wrong, the verdict.

    Colours only on a terminal, and not with ``NO_COLOR``; text from nodes is shown as text, never
    obeyed.

    Args:
        report: the run.
        file: where to; standard output when None.
        width: columns; None asks the terminal, 80 where there is none.
    """
    from rich.console import Console

    out = file or sys.stdout
    if width is None and not out.isatty():
        width = WIDTH
    console = Console(
        file=out, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False
    )
    console.print(_table(report, console.width))
    _failures(console, report)
    right = sum(o.verdict == "right" for o in report.outcomes)
    console.print(
        f"{report.verdict}: {right} of {len(report.outcomes)} right on cluster "
        f"{one_line(report.cluster)}, {report.seconds:.0f} s, run {one_line(report.run)}",
        style=STYLES[report.verdict],
    )


def _table(report: Report, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("workload", "node", "answer"):
        table.add_column(heading, overflow="fold")
    for heading in ("figure", "of limit", "seconds"):
        if width >= NARROW:
            table.add_column(heading, justify="right", no_wrap=True)
    for o in report.outcomes:
        figure = "" if o.figure is None else figure_text(o.figure, o.unit)
        share = "" if o.share is None else f"{o.share:.2f}"
        row = [Text(one_line(o.workload)), Text(one_line(o.node))]
        row.append(Text(o.verdict, style=STYLES[o.verdict]))
        row += [Text(one_line(t)) for t in (figure, share, f"{o.seconds:.1f}")]
        table.add_row(*row[: len(table.columns)])
    return table


def _failures(console: Console, report: Report) -> None:
    """What is not right, and why; a reason that several share is told once."""
    from rich.text import Text

    reasons: dict[tuple[str, str], list[str]] = {}
    for o in report.outcomes:
        if o.verdict != "right":
            reasons.setdefault((o.verdict, o.message), []).append(_where(o))
    for (verdict, message), where in reasons.items():
        console.print()
        console.print(Text(f"{', '.join(where)}: {verdict}", style=STYLES[verdict]))
        console.print(Text(printable(message)))
    console.print()


def _where(o: Outcome) -> str:
    return one_line(f"{o.workload} on {o.node}" if o.node else o.workload)

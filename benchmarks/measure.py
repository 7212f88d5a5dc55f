"""What is measured, and what comes out: times in seconds, medians, ratios, limits."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

SECONDS = 600.0
"""Longest that one command may take: the first installs all packages."""


class CommandFailedError(Exception):
    """A command that is measured did not do its work, so its time means nothing."""


def timed(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, seconds: float = SECONDS
) -> float:
    """The wall time in seconds of a command, from its start to its end.

    Its output goes to a file: a pipe would be held open by daemons that it leaves behind.

    Raises:
        CommandFailedError: it failed; the message has the end of its output.
    """
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        code = subprocess.run(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        ).returncode
        took = time.perf_counter() - began
        output.seek(0)
        said = output.read().decode(errors="replace")
    if code:
        tail = "\n".join(f"    {line}" for line in said.strip().splitlines()[-15:])
        raise CommandFailedError(f"{' '.join(argv)} ended with exit code {code}:\n{tail}")
    return took


@dataclass(frozen=True)
class Subject:
    """One thing that is measured.

    Attributes:
        name: as on the command line.
        ours: what we do.
        plain: the tool beside it.
        limit: how long ours may take: so many times the plain tool's median, or so many seconds.
        of: which of the two the limit is.
    """

    name: str
    ours: str
    plain: str
    limit: float
    of: Literal["ratio", "seconds"]


Pair = tuple[float, float | None]
"""Seconds of ours and of the plain tool; None where that cannot be measured."""


@dataclass
class Figures:
    """The times of one subject, in the order they were taken."""

    subject: Subject
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Take up one round."""
        self.ours.append(pair[0])
        if pair[1] is not None:
            self.plain.append(pair[1])

    @property
    def ratio(self) -> float | None:
        """Our median by the plain tool's."""
        return median(self.ours) / median(self.plain) if self.plain else None

    @property
    def within(self) -> bool | None:
        """Whether ours is within its limit; None where that cannot be said."""
        value = self.ratio if self.subject.of == "ratio" else median(self.ours)
        return None if value is None else value <= self.subject.limit

    def as_json(self) -> dict[str, Any]:
        """One entry of ``results`` in the output of ``--json``."""
        return {
            "name": self.subject.name,
            "ours": {"what": self.subject.ours, **_summary(self.ours)},
            "plain": {"what": self.subject.plain, **_summary(self.plain)},
            "ratio": self.ratio,
            "limit": {"of": self.subject.of, "value": self.subject.limit},
            "within": self.within,
        }

    def as_row(self) -> list[str]:
        """The cells of a line of the table: what, ours, plain, ratio, limit, verdict."""
        unit = "x" if self.subject.of == "ratio" else " s"
        return [
            f"{self.subject.ours}\n  {self.subject.plain}",
            shown(self.ours),
            shown(self.plain),
            "-" if self.ratio is None else f"{self.ratio:.2f}x",
            f"{self.subject.limit:g}{unit}",
            {True: "within", False: "over", None: "-"}[self.within],
        ]


def shown(seconds: Sequence[float]) -> str:
    """The median in seconds, and below it the least and the most."""
    if not seconds:
        return "-"
    return f"{median(seconds):.3f}\n{min(seconds):.3f}..{max(seconds):.3f}"


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"median": None, "min": None, "max": None, "seconds": []}
    return {
        "median": median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "seconds": list(seconds),
    }

"""How long the command line takes before it does anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import Project

NAME = "command line"
ROUNDS = 20
SUBJECTS = (Subject("help", "saf-env --help", "python -c pass", 4, "ratio"),)


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever."""
    while True:
        ours = project.saf_env("--help")
        plain = timed([sys.executable, "-c", "pass"], env=project.env, cwd=project.home)
        yield {"help": (ours, plain)}

"""``python -m benchmarks [NAME…]``: measure, then print a table, or JSON with ``--json``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import bare, checking, cluster, command_line, containers, images, locking, many
from benchmarks.measure import CommandFailedError, Figures, Pair, Subject
from benchmarks.project import Project, project
from saf_env import __version__
from saf_env.cli.output import Progress, print_json, print_table


@dataclass(frozen=True)
class Group:
    """Subjects that are measured together.

    Attributes:
        name: of the group.
        rounds: yields, in a project of its own, one pair of times of each subject a round.
        count: how many rounds count.
        subjects: what is measured.
    """

    name: str
    rounds: Callable[[Project], Iterator[Mapping[str, Pair]]]
    count: int
    subjects: tuple[Subject, ...]


GROUPS = tuple(
    Group(module.NAME, module.rounds, module.ROUNDS, module.SUBJECTS)
    for module in (command_line, locking, checking, cluster, images, containers, bare, many)
)
_WITH_ENGINE = (images.NAME, containers.NAME)
NAMES = [subject.name for group in GROUPS for subject in group.subjects]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; 0 also when something is over its limit."""
    arguments = _arguments(argv)
    wanted = arguments.names or NAMES
    figures: list[Figures] = []
    load = os.getloadavg()[0]
    try:
        with Progress() as progress:
            for group in GROUPS:
                asked = [subject.name for subject in group.subjects if subject.name in wanted]
                if asked and (reason := _why_not(group)):
                    progress.notice(f"not measured, {reason}: {', '.join(asked)}")
                elif asked:
                    figures += _measured(group, arguments.rounds, arguments.warm_up, progress)
    except CommandFailedError as error:
        print(f"a command that is measured failed: {error}", file=sys.stderr)
        return 1
    chosen = [one for one in figures if one.subject.name in wanted]
    if arguments.json:
        print_json(_as_json(chosen, load))
    else:
        _show(chosen, load)
    return 0


def _why_not(group: Group) -> str:
    """Why a group cannot be measured here; empty if it can."""
    if group.name in _WITH_ENGINE and not images.engine_answers():
        return "no Docker engine answers"
    return bare.why_not() if group.name == bare.NAME else ""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How long saf-env's commands take, beside the plain tools. Nothing is "
        "asserted: the exit code is 0 also when a figure is over its limit.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that count, of everything")
    parser.add_argument(
        "--warm-up", type=int, default=1, metavar="N", help="rounds before that do not (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print all times as JSON")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"there is no {name}; there are {', '.join(NAMES)}")
    return arguments


def _measured(group: Group, count: int | None, warm_up: int, progress: Progress) -> list[Figures]:
    """The figures of a group, from ``count`` rounds (None: as many as it wants) after a warm-up."""
    figures = {subject.name: Figures(subject) for subject in group.subjects}
    total = warm_up + (count or group.count)
    with project(group.name.replace(" ", "-")) as made:
        progress.step(f"{group.name}: getting ready")
        for number, pairs in enumerate(group.rounds(made), start=1):
            progress.step(f"{group.name}: round {number} of {total} done")
            if number > warm_up:
                for name, pair in pairs.items():
                    figures[name].add(pair)
            if number == total:
                break
    return list(figures.values())


def _show(figures: Sequence[Figures], load: float) -> None:
    print(f"{os.cpu_count()} CPUs, {platform.platform()}, load {load:.1f} at the start")
    print("seconds of whole processes: the median, and below it the least and the most")
    print_table(
        ["saf-env\n  beside", "ours", "plain", "ratio", "limit", ""],
        [one.as_row() for one in figures],
    )
    if any(not one.plain for one in figures):
        print(
            "plain Ray was not measured: `ray stop` ends every Ray of the machine, and there is\n"
            "no process namespace here to keep it in (Linux, unshare, root or user namespaces)"
        )


def _as_json(figures: Sequence[Figures], load: float) -> dict[str, object]:
    return {
        "schema": 1,
        "saf_env": __version__,
        "python": platform.python_version(),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "load": load},
        "results": [one.as_json() for one in figures],
    }


if __name__ == "__main__":
    sys.exit(main())

"""The commands and their options, as an argparse parser. Every command's help has an example."""

from __future__ import annotations

import argparse

from saf_env import __version__

_EPILOG = """\
exit codes:
  0 ok   1 a bug in saf-env   2 usage or cluster file   3 lock or toolchain
  4 preflight   5 host unreachable   6 bring-up   7 workload   130 interrupted

example:
  saf-env up && saf-env test && saf-env down
"""


class _Subcommands:
    """Adds commands that all have the common options, an example and a module that runs them."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._common = argparse.ArgumentParser(add_help=False)
        _common_options(self._common, default=argparse.SUPPRESS)

    def add(
        self, name: str, summary: str, example: str, module: str = ""
    ) -> argparse.ArgumentParser:
        command = self._group.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[self._common],
            allow_abbrev=False,
        )
        command.set_defaults(module=module or name)
        return command


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``saf-env``; parsed arguments have ``module``, the command's module."""
    parser = argparse.ArgumentParser(
        prog="saf-env",
        description="One Ray cluster out of a few Macs and a Linux box, "
        "every node built from one lock.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"saf-env {__version__}")
    _common_options(parser, default=None)
    commands = _Subcommands(parser)
    _lock(commands)
    _check(commands)
    _up_and_down(commands)
    _look(commands)
    _test(commands)
    _service(commands)
    _toolchain(commands)
    completion = commands.add(
        "completion",
        "print the completion script of a shell",
        'eval "$(saf-env completion bash)"',
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def _common_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    group = parser.add_argument_group("options of every command")
    group.add_argument(
        "--file",
        metavar="FILE",
        default=default,
        help="the cluster file (default: cluster.toml in the project folder)",
    )
    group.add_argument(
        "--project",
        metavar="FOLDER",
        default=default,
        help="the project folder, where .saf and lockfiles lie (default: this folder)",
    )
    group.add_argument(
        "--debug",
        action="store_true",
        default=default or False,
        help="show the traceback of an error",
    )


def _lock(commands: _Subcommands) -> None:
    lock = commands.add(
        "lock",
        "resolve the cluster file and write lockfiles/<cluster>/",
        "saf-env lock --upgrade numpy",
    )
    how = lock.add_mutually_exclusive_group()
    how.add_argument(
        "--check", action="store_true", help="only say whether the lock is fresh (exit code 3: no)"
    )
    how.add_argument(
        "--upgrade",
        nargs="?",
        const="",
        action="append",
        metavar="PACKAGE",
        help="take newer versions, of PACKAGE or of everything, and show what changes",
    )
    lock.add_argument(
        "--python-source",
        choices=["managed", "archive", "system"],
        help="take the interpreters from this source and no other",
    )
    lock.add_argument(
        "--python-downloads",
        metavar="FILE",
        help="a table of interpreters in uv's format, instead of asking their release pages",
    )
    lock.add_argument("--json", action="store_true", help="print what changed as JSON")


def _check(commands: _Subcommands) -> None:
    check = commands.add(
        "check",
        "is this machine what the lock says, and may its nodes join",
        "saf-env check --fix",
    )
    check.add_argument("nodes", nargs="*", metavar="NODE", help="only these nodes")
    check.add_argument("--deep", action="store_true", help="hash every installed file")
    how = check.add_mutually_exclusive_group()
    how.add_argument(
        "--fix", action="store_true", help="repair what can be repaired, then check again"
    )
    how.add_argument("--watch", action="store_true", help="check again and again, until Ctrl-C")
    how.add_argument(
        "--explain", metavar="ID", help="look at nothing, say what the check called ID is about"
    )
    check.add_argument(
        "--only", action="append", default=[], metavar="ID", help="only the check called ID"
    )
    check.add_argument(
        "--ignore", action="append", default=[], metavar="ID", help="let ID fail with a warning"
    )
    check.add_argument(
        "--interval",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="of --watch, from one check to the next (default: 5)",
    )
    check.add_argument("--json", action="store_true", help="print the findings as JSON")


def _seconds(text: str) -> float:
    """A number from 0.1 to a day."""
    number = float(text)
    if not 0.1 <= number <= 86400:
        raise ValueError(text)
    return number


_seconds.__name__ = "number of seconds, 0.1 or more,"  # argparse names it in its error


def _up_and_down(commands: _Subcommands) -> None:
    up = commands.add(
        "up",
        "lock if nothing is locked, provision, check, start and attest the cluster",
        "saf-env up",
    )
    up.add_argument(
        "nodes", nargs="*", metavar="NODE", help="only these nodes, and the head that they need"
    )
    up.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="ID",
        help="let check ID fail with a warning",
    )
    up.add_argument(
        "--partial",
        action="store_true",
        help="do without the nodes of hosts that cannot be reached (not without the head)",
    )
    up.add_argument("--json", action="store_true", help="print the status of the nodes as JSON")
    join = commands.add(
        "join",
        "check, start and attest one node of this machine, whose cluster runs elsewhere",
        "saf-env join beta-mlx",
    )
    join.add_argument("node", metavar="NODE", help="a node of this machine")
    join.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="ID",
        help="let check ID fail with a warning",
    )
    join.add_argument("--json", action="store_true", help="print the status of the nodes as JSON")
    down = commands.add(
        "down", "stop this cluster, or some of its nodes, and nothing else", "saf-env down"
    )
    down.add_argument("nodes", nargs="*", metavar="NODE", help="only these nodes")
    down.add_argument(
        "--purge",
        action="store_true",
        help="also remove all that saf-env has on other hosts: environments, cache, token",
    )
    down.add_argument(
        "--all", action="store_true", help="stop every cluster that runs from this project folder"
    )


def _look(commands: _Subcommands) -> None:
    status = commands.add(
        "status", "show the nodes, planned against actual", "saf-env status --json"
    )
    status.add_argument("--json", action="store_true", help="print the status as JSON")
    plan = commands.add("plan", "show what up would do, without doing it", "saf-env plan --json")
    plan.add_argument("--json", action="store_true", help="print the whole plan as JSON")
    logs = commands.add("logs", "show the logs of the nodes", "saf-env logs head -f")
    logs.add_argument("nodes", nargs="*", metavar="NODE", help="only these nodes")
    logs.add_argument("-f", "--follow", action="store_true", help="keep showing what is added")
    logs.add_argument(
        "-n",
        "--lines",
        type=_count,
        default=20,
        metavar="N",
        help="the last N lines of each file (default: 20)",
    )
    logs.add_argument(
        "--bundle",
        metavar="FILE",
        help="write one archive with all logs, facts, findings, plan and versions, and no secret",
    )


def _count(text: str) -> int:
    """A whole number from 0 up."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


_count.__name__ = "number of lines"  # argparse names it in its error


def _test(commands: _Subcommands) -> None:
    test = commands.add(
        "test",
        "run the workload suite on the running cluster and print its report",
        "saf-env test head matmul",
    )
    test.add_argument(
        "select",
        nargs="*",
        metavar="SELECT",
        help="only these: names of nodes and of workloads",
    )
    test.add_argument("--quick", action="store_true", help="smaller sizes: under a minute")
    test.add_argument("--json", action="store_true", help="print the report as JSON")


def _service(commands: _Subcommands) -> None:
    service = commands.add(
        "service",
        "have native nodes start again after a reboot of their host",
        "saf-env service install beta-mlx",
    )
    service.add_argument("action", choices=["install", "remove", "status"], help="what to do")
    service.add_argument(
        "nodes", nargs="*", metavar="NODE", help="only these nodes (default: all that are native)"
    )
    service.add_argument("--json", action="store_true", help="print the status as JSON")


def _toolchain(commands: _Subcommands) -> None:
    toolchain = commands.add(
        "toolchain",
        "pack an interpreter of this machine, for machines and containers that lack it",
        "saf-env toolchain pack --python /usr/bin/python3.11",
    )
    toolchain.add_argument("action", choices=["pack"], help="what to do")
    toolchain.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter (default: the one of this machine that the lock names)",
    )
    toolchain.add_argument(
        "--output",
        metavar="FILE",
        help="the archive (default: archives/cpython-VERSION-PLATFORM.tar.gz in the project)",
    )

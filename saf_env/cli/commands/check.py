"""``saf-env check``: is this machine what the lock says, and may its nodes join."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence

from saf_env.alone import Notify, nobody
from saf_env.cli import findings
from saf_env.cli.context import Context
from saf_env.cli.output import Progress, columns, explanation, print_json
from saf_env.cluster import gate
from saf_env.errors import PreflightError, SafEnvError
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import CHECKS, IDS, explained, may_join, to_json

_CLEAR = "\x1b[H\x1b[J"
"""Cursor to the upper left corner, and nothing below it (ECMA-48: CUP, ED)."""


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Check, with ``--fix`` repair and check again, and print the findings."""
    if arguments.explain:
        return _explain(context, arguments.explain)
    context.refuse_unknown([*arguments.only, *arguments.ignore], IDS, "check")
    if arguments.watch:
        return _watch(context, arguments)
    with Progress() as progress:
        progress.step("looking at this machine")
        found = _found(context, arguments, progress.step)
        if arguments.fix:
            from saf_env.cluster.fix import fix

            asked = [finding for finding in found if finding.id not in arguments.ignore]
            nodes = context.nodes(arguments.nodes)
            fix(context, nodes, asked, progress.step, progress.notice)
            progress.step("looking again")
            context.plan_anew()
            found = _found(context, arguments, progress.step)
    if arguments.json:
        print_json(to_json(found))
    else:
        findings.show(found)
    return _code(found)


def _found(context: Context, arguments: argparse.Namespace, notify: Notify) -> list[Finding]:
    """What is so now."""
    nodes = context.nodes(arguments.nodes)
    context.refuse_unsupported(nodes)
    return gate.check(
        context,
        nodes,
        ignore=arguments.ignore,
        only=arguments.only,
        deep=arguments.deep,
        notify=notify,
    )


def _code(found: Sequence[Finding]) -> int:
    return 0 if may_join(found) else PreflightError.exit_code


def _explain(context: Context, name: str) -> int:
    """Print what is to be known of one check; nothing of a cluster is needed for that."""
    context.refuse_unknown([name], IDS, "check")
    (check,) = (check for check in CHECKS if check.id == name)
    width = min(columns(), 100)
    paragraphs = [f"{name}: {check.title}", *explained(check)]
    print("\n\n".join(textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs))
    return 0


def _watch(context: Context, arguments: argparse.Namespace) -> int:
    """Check again and again until interrupted; the exit code is that of the last time."""
    code: int | None = None
    shown = _Shown(arguments)
    try:
        while True:
            # Anew each time: the cluster file, the lock and the state may be other ones by now.
            fresh = Context(context.home, context.file)
            try:
                found = _found(fresh, arguments, nobody)
                code = _code(found)
                shown.findings(found)
            except SafEnvError as error:
                code = error.exit_code
                shown.error(error)
            time.sleep(arguments.interval)
    except KeyboardInterrupt:
        if code is None:
            raise
        return code


class _Shown:
    """What ``--watch`` has on the screen, or has told so far."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._json = arguments.json
        self._interval = arguments.interval
        self._redraws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._found: list[Finding] | None = None
        self._error = ""

    def findings(self, found: list[Finding]) -> None:
        """Show them all on a terminal, or tell what is other than before."""
        if self._json:
            print(json.dumps(to_json(found)), flush=True)
        elif self._redraws:
            sys.stdout.write(_CLEAR)
            findings.show(found)
            self._foot()
        else:
            now = time.strftime("%H:%M:%S")
            for line in findings.changes(self._found, found):
                print(f"{now} {line}", flush=True)
        self._found, self._error = found, ""

    def error(self, error: SafEnvError) -> None:
        """Say why nothing could be checked; once, as long as it is so."""
        text = explanation(error)
        if self._redraws and not self._json:
            print(f"{_CLEAR}{text}")
            self._foot()
        elif text != self._error:
            print(text, file=sys.stderr, flush=True)
        self._found, self._error = None, text

    def _foot(self) -> None:
        now = time.strftime("%H:%M:%S")
        print(f"at {now}, again after {self._interval:g} s; Ctrl-C ends", flush=True)

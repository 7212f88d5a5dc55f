"""``saf-env logs``: what the nodes wrote, each line with its node and file. Needs no lock."""

from __future__ import annotations

import argparse
import re
import sys
import time

from saf_env.cli.context import Context
from saf_env.cli.output import printable
from saf_env.cluster.runtimes import LogText
from saf_env.plan.build import temp_dirs

_LIMIT = 1_000_000
"""Bytes of one file that are read at once: its last ones."""

_POLL_SECONDS = 0.5

_CHATTER = re.compile(r"\s(INFO|SUCC) (scripts|cli_output_helpers|usage_lib)\.py:")
"""What ``ray start`` tells its user, such as to stop all of it by ``ray stop``."""


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the last lines of every log, and with ``--follow`` what comes after them."""
    folders = temp_dirs(context.spec, context.home)
    context.refuse_unknown(arguments.nodes, list(folders), "node")
    nodes = {name: f for name, f in folders.items() if name in (arguments.nodes or folders)}
    hosts = context.hosts()
    texts, read, lost = hosts.logs(nodes, {}, _LIMIT)
    for log in texts:
        last = max(0, arguments.lines)
        _show(log, log.text.splitlines()[-last:] if last else [])
    for error in lost.values():
        print(f"no logs: {printable(error.message)}", file=sys.stderr)
    if not texts and not lost:
        print("no logs yet: nothing was started")
    while arguments.follow:
        time.sleep(_POLL_SECONDS)
        texts, read, _ = hosts.logs(nodes, read, _LIMIT)
        for log in texts:
            _show(log, log.text.splitlines())
    return 0


def _show(log: LogText, lines: list[str]) -> None:
    for line in lines:
        if not _CHATTER.search(line):
            print(f"{log.node} {log.file}: {printable(line)}", flush=True)

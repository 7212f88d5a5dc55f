"""``saf-env logs``: what the nodes wrote, each line with its node and file."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from saf_env.cli.context import Context
from saf_env.cli.output import printable

_LIMIT = 1_000_000
"""Bytes of one file that are read at once: its last ones."""

_POLL_SECONDS = 0.5

_CHATTER = re.compile(r"\s(INFO|SUCC) (scripts|cli_output_helpers|usage_lib)\.py:")
"""What ``ray start`` tells its user, such as to stop all of it by ``ray stop``."""


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the last lines of every log, and with ``--follow`` what comes after them."""
    nodes = context.nodes(arguments.nodes)
    runtime = context.runtime()
    folders = {str(node.temp_dir): node.name for node in nodes}
    texts, offsets = runtime.logs(nodes, {}, _LIMIT)
    for path, text in texts.items():
        last = max(0, arguments.lines)
        _show(path, text.splitlines()[-last:] if last else [], folders)
    if not texts:
        print("no logs yet: nothing was started")
    while arguments.follow:
        time.sleep(_POLL_SECONDS)
        texts, offsets = runtime.logs(nodes, offsets, _LIMIT)
        for path, text in texts.items():
            _show(path, text.splitlines(), folders)
    return 0


def _show(path: str, lines: list[str], folders: dict[str, str]) -> None:
    file = Path(path)
    node = next(
        (name for folder, name in folders.items() if path.startswith(folder + "/")), file.stem
    )
    for line in lines:
        if not _CHATTER.search(line):
            print(f"{node} {file.name}: {printable(line)}", flush=True)

"""``saf-env logs``: what the nodes wrote, each line with its node and file. Needs no lock."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, printable
from saf_env.cluster import bundle
from saf_env.cluster.runtimes import LogText
from saf_env.errors import SafEnvError, UsageError
from saf_env.plan.build import temp_dirs, token_path

_LIMIT = 1_000_000
"""Bytes of one file that are read at once: its last ones."""

_BUNDLE_LIMIT = 20_000_000
"""The same, for ``--bundle``."""

_POLL_SECONDS = 0.5

_CHATTER = re.compile(r"\s(INFO|SUCC) (scripts|cli_output_helpers|usage_lib)\.py:")
"""What ``ray start`` tells its user, such as to stop all of it by ``ray stop``."""


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the last lines of every log, and with ``--follow`` what comes after them."""
    if arguments.bundle and arguments.follow:
        raise UsageError("--bundle writes what there is now; leave --follow out")
    folders = temp_dirs(context.spec, context.place)
    context.refuse_unknown(arguments.nodes, list(folders), "node")
    context.refuse_elsewhere(arguments.nodes)
    nodes = {name: f for name, f in folders.items() if name in (arguments.nodes or folders)}
    hosts = context.hosts()
    if arguments.bundle:
        target = Path(arguments.bundle)
        bundle.refuse(target)
        _bundle(context, target, nodes)
        return 0
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


def _bundle(context: Context, target: Path, nodes: dict[str, Path]) -> None:
    """Write one archive with logs, facts, findings, plan, state and versions, and no secret."""
    from saf_env.cli.commands.plan import plan_json
    from saf_env.cluster.gate import findings, gather, with_ways
    from saf_env.cluster.look import look
    from saf_env.cluster.status import as_json
    from saf_env.preflight.registry import to_json

    home, name = context.place, context.spec.name
    seen: dict[str, dict[str, Any]] = {}

    def facts() -> dict[str, dict[str, Any]]:
        seen.update(gather(context, context.plan.nodes, tolerant=True))
        with contextlib.suppress(SafEnvError):  # what is known is told all the same
            with_ways(context, seen)
        return seen

    values: dict[str, Callable[[], Any]] = {
        "versions": bundle.versions,
        "plan": lambda: plan_json(context.plan),
        "facts": facts,
        "findings": lambda: to_json(findings(context.plan, seen, context.stale())),
        "status": lambda: as_json(context.plan, look(context).nodes),
    }
    lock = sorted(p for p in (context.home / "lockfiles" / name).rglob("*") if p.is_file())
    files = {path.relative_to(context.home).as_posix(): path for path in lock}
    files[context.file.name] = context.file
    token = token_path(home, name)
    hidden = [token, token.with_name("token.container")]
    if context.spec.tailscale:
        hidden.append(home / context.spec.tailscale.auth_key_file)
    secrets = bundle.secrets_of(hidden, os.environ)
    texts: list[LogText] = []
    missing: list[str] = []
    with Progress() as progress:
        progress.step(f"looking at all nodes of cluster {name}")
        for node, folder in nodes.items():  # one by one: whatever fails, the others' are had
            try:
                found, _, lost = context.hosts().logs({node: folder}, {}, _BUNDLE_LIMIT)
                texts += found
                missing += [f"logs/{node}: {error.message}" for error in lost.values()]
            except SafEnvError as error:
                missing.append(f"logs/{node}: {error.message}")
        bundle.write(target, texts, values, files, missing, secrets)
    print(
        f"wrote {target}: look at it before you give it to others, logs are as the nodes wrote them"
    )


def _show(log: LogText, lines: list[str]) -> None:
    for line in lines:
        if not _CHATTER.search(line):
            print(f"{log.node} {log.file}: {printable(line)}", flush=True)

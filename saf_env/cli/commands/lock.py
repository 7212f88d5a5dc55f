"""``saf-env lock``: resolve once, write ``lockfiles/<cluster>/``."""

from __future__ import annotations

import argparse
from pathlib import Path

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, print_json
from saf_env.errors import LockError, UsageError


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Lock, or with ``--check`` say whether that is needed."""
    if arguments.check:
        if arguments.python_source or arguments.python_downloads:
            raise UsageError("--check looks at the lock in place; --python-… is for making one")
        return _check(context, as_json=arguments.json)
    from saf_env.lock.make import make

    upgrades: list[str] = arguments.upgrade or []
    with Progress() as progress:
        progress.step(f"locking cluster {context.spec.name}")
        outcome = make(
            context.spec,
            context.home,
            context.uv,
            upgrade="" in upgrades,
            upgrade_packages=[package for package in upgrades if package],
            python_source=arguments.python_source,
            downloads=Path(arguments.python_downloads) if arguments.python_downloads else None,
            notify=progress.notice,
        )
    if arguments.json:
        print_json({"schema": 1, "written": outcome.written, "changes": list(outcome.changes)})
        return 0
    for change in outcome.changes:
        print(change)
    name = context.spec.name
    print(f"lockfiles/{name} is {'written' if outcome.written else 'fresh: nothing to do'}")
    return 0


def _check(context: Context, *, as_json: bool) -> int:
    try:
        context.fresh_lock()
        problem = ""
    except LockError as error:
        if not as_json:
            raise
        problem = error.message
    if as_json:
        print_json({"schema": 1, "fresh": not problem, "reason": problem})
    else:
        print(f"lockfiles/{context.spec.name} is fresh")
    return LockError.exit_code if problem else 0

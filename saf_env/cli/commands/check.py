"""``saf-env check``: is this machine what the lock says, and may its nodes join."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, columns, print_json, print_table
from saf_env.cluster import gate
from saf_env.errors import PreflightError
from saf_env.preflight.base import Finding, together
from saf_env.preflight.registry import (
    CHECKS,
    IDS,
    explained,
    may_join,
    stopping,
    to_json,
    unexplained,
)

_ORDER = {"fail": 0, "warn": 1, "skip": 2, "ok": 3}


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Check, with ``--fix`` repair and check again, and print the findings."""
    if arguments.explain:
        return _explain(context, arguments.explain)
    context.refuse_unknown([*arguments.only, *arguments.ignore], IDS, "check")
    nodes = context.nodes(arguments.nodes)
    context.refuse_unsupported(nodes)
    wish = {"ignore": arguments.ignore, "only": arguments.only, "deep": arguments.deep}
    with Progress() as progress:
        progress.step("looking at this machine")
        found = gate.check(context, nodes, **wish, notify=progress.step)
        if arguments.fix:
            from saf_env.cluster.fix import fix

            asked = [finding for finding in found if finding.id not in arguments.ignore]
            fix(context, nodes, asked, progress.step, progress.notice)
            progress.step("looking again")
            context.plan_anew()
            nodes = context.nodes(arguments.nodes)
            found = gate.check(context, nodes, **wish, notify=progress.step)
    if arguments.json:
        print_json(to_json(found))
    else:
        _show(found)
    return 0 if may_join(found) else PreflightError.exit_code


def _explain(context: Context, name: str) -> int:
    """Print what is to be known of one check; nothing of a cluster is needed for that."""
    context.refuse_unknown([name], IDS, "check")
    (check,) = (check for check in CHECKS if check.id == name)
    width = min(columns(), 100)
    paragraphs = [f"{name}: {check.title}", *explained(check)]
    print("\n\n".join(textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs))
    return 0


def _show(found: Sequence[Finding]) -> None:
    """The table, worst first, then the remedies; what is in order is only counted."""
    told = [f for f in unexplained(found) if f.level != "ok"]
    told.sort(key=lambda f: _ORDER[f.level])
    groups = together(told)
    if groups:
        print_table(
            ["", "check", "nodes", "what is so", "evidence"],
            [[f.level, f.id, names, f.summary, f.evidence] for f, names in groups],
        )
    for finding, names in groups:
        if finding.hint:
            print(f"{finding.id} on {names}: {finding.hint}")
    for finding, names in together([f for f in stopping(found) if f.level == "skip"]):
        without = f"--ignore {finding.id} does without"
        print(f"{finding.id} on {names}: what cannot be judged stops a join; {without}")
    count = {level: sum(f.level == level for f in found) for level in _ORDER}
    words = [f"{n} {level}" for level, n in count.items() if n]
    verdict = "may join" if may_join(found) else "may not join"
    names = ", ".join(dict.fromkeys(f.node for f in found))
    print(f"{names}: {verdict} ({', '.join(words)})")

"""Writes docs/checks.md from the words of the checks themselves.

Run it in saf-env's development environment:

    sh saf_env/bootstrap.sh dev python docs/generate.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saf_env.preflight.base import Check
from saf_env.preflight.registry import AREAS, CHECKS, explained

TARGET = Path(__file__).with_name("checks.md")

_HEAD = """\
# What is checked

<!-- Written by docs/generate.py from the checks themselves. -->

`saf-env check` looks at a node without changing anything, and `saf-env up` does the same before it
starts one. Facts are gathered on the node; then every check judges them, so that you see all that
is wrong at once. A check says one of four things:

| level | means |
|---|---|
| `ok` | the requirement is met |
| `warn` | it is not, and the node may join all the same |
| `fail` | it is not, and the node may not join (exit code 4) |
| `skip` | it could not be judged, and why; a node may not join without a check that can `fail` |

`saf-env check --only ID` runs one check. `--ignore ID`, also of `saf-env up`, turns what would
stop a join into a `warn` that says so. `--fix` makes environments anew, builds images that are
missing or have other files than they should, and writes the names of nodes to /etc/hosts; it closes
a token that others can read, and makes one that is missing or, while nothing runs, of no use. It
says what it mends and what it could not. It leaves alone what a running node was started from,
lines of /etc/hosts that are not the cluster's, and a token that is not a plain file of yours.

Once a node has started it is *attested*: the facts are gathered again, from inside a Ray worker on
it. If its fingerprint (a digest over the interpreter's build and all packages) is not the planned
one, the node is drained and stopped, and `up` ends with exit code 6.

The checks by what they are about; `saf-env check --explain ID` prints what is said of one below.
"""

_BY_ID = {check.id: check for check in CHECKS}


def render() -> str:
    """The text of docs/checks.md."""
    tables = "".join(_table(area, ids) for area, ids in AREAS.items())
    return _HEAD + tables + "".join(_section(_BY_ID[i]) for ids in AREAS.values() for i in ids)


def _table(area: str, ids: Sequence[str]) -> str:
    checks = [_BY_ID[one] for one in ids]
    rows = "".join(f"| [`{c.id}`](#{c.id}) | {c.level} | {c.title} |\n" for c in checks)
    return f"\n| {area} | worst | what must be so |\n|---|---|---|\n{rows}"


def _section(check: Check) -> str:
    return f"\n## `{check.id}`\n\n" + "\n\n".join(explained(check)) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")

"""Tells of nodes that died while somebody waited for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from saf_env.errors import BringUpError
from saf_env.runtimes.base import Died

_STACK = re.compile(r"\+0x[0-9a-f]+\) \[0x|StackTrace Information")


def last_words(log: str, count: int = 15) -> list[str]:
    """The last ``count`` lines of a log, less the C++ stack that Ray's programs end with."""
    lines = [line for line in log.splitlines() if line.strip() and not _STACK.search(line)]
    return [line[:500] for line in lines[-count:]]


def refuse_dead(dead: Sequence[Died]) -> None:
    """Raise BringUpError with the last words of the first of ``dead``; nothing without one."""
    for victim in dead:
        lines = last_words(victim.tail)
        raise BringUpError(
            f"{victim.node} died while the cluster was starting. The end of its log:\n"
            + "\n".join(f"    {line}" for line in lines),
            hint=f"`saf-env logs {victim.node}` shows all of it",
            node=victim.node,
        )

"""Which tests the words of ``saf-env test`` choose.

A word is the name of a node, the name of a workload, or the id of a test (``test_pi[head]``). Words
of one sort add up, nodes and workloads together narrow: ``head linux pi`` is pi on those two nodes.
``*`` and ``?`` stand for any characters and for any one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saf_env.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A test: its id (the name with its parameter), its workload, its node ('' for none)."""

    id: str
    workload: str
    node: str


def matches(word: str, name: str) -> bool:
    """Whether ``word`` is ``name``, or a pattern that fits it."""
    pattern = re.escape(word).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def choose(
    words: Sequence[str], candidates: Sequence[Candidate], nodes: Sequence[str]
) -> list[bool]:
    """Say for each candidate whether it is chosen; without words, all are.

    Args:
        words: what the user typed.
        candidates: every test of the suite.
        nodes: names of all nodes, also of those without a test.

    Raises:
        UsageError: a word fits nothing.
    """
    workloads = sorted({c.workload for c in candidates})
    by_node = [w for w in words if any(matches(w, n) for n in nodes)]
    by_workload = [w for w in words if any(matches(w, n) for n in workloads)]
    by_id = [w for w in words if any(matches(w, c.id) for c in candidates)]
    for word in words:
        if word not in by_node + by_workload + by_id:
            raise UsageError(
                f"{word!r} is no node, workload or test id. Nodes: {', '.join(nodes)}. "
                f"Workloads: {', '.join(workloads)}."
            )

    def chosen(candidate: Candidate) -> bool:
        if any(matches(w, candidate.id) for w in by_id):
            return True
        if not (by_node or by_workload):
            return not words
        fits_node = not by_node or any(matches(w, candidate.node) for w in by_node)
        fits_work = not by_workload or any(matches(w, candidate.workload) for w in by_workload)
        return fits_node and fits_work

    return [chosen(c) for c in candidates]

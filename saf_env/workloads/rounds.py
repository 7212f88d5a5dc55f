"""Repeats of a measurement, with and without Ray in turn, so that both see the same machine."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median


def in_turn(
    rounds: int, ours: Callable[[], float], limit: Callable[[], float]
) -> tuple[float, float, list[float]]:
    """Measure both ``rounds`` times, taking turns.

    Args:
        rounds: how often, at least 1.
        ours: measures with Ray; any unit.
        limit: measures the plain program; the same unit.

    Returns:
        Median of ours, median of the limit, and all of ours in order.
    """
    pairs = [(ours(), limit()) for _ in range(rounds)]
    mine = [a for a, _ in pairs]
    return median(mine), median(b for _, b in pairs), mine

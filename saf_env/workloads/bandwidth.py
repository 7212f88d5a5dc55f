"""Workload ``bandwidth``: memory of a node, one thread, counted as STREAM does.

Right: the arrays after the last copy and the last triad are the expected ones, byte for byte.
Figure: the best copy pass in GB/s, 16 bytes an element (McCalpin's STREAM: the first pass is
dropped, the best of the others counts); triad, 24 bytes an element, is in the details.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from saf_env.workloads.kernels.memory import PERIOD, SCALAR, pattern, stream
from saf_env.workloads.placement import Placement
from saf_env.workloads.rounds import in_turn
from saf_env.workloads.trial import Trial

ROUNDS = 3


def expected(elements: int) -> dict[str, str]:
    """Digests of the arrays that a copy and a triad of ``elements`` float64 must leave."""
    periods = elements // PERIOD
    b, c = pattern(0), pattern(1)
    return {
        "copy_sha256": _digest(b.tobytes(), periods),
        "triad_sha256": _digest((b + SCALAR * c).tobytes(), periods),
    }


def _digest(period: bytes, times: int) -> str:
    digest = hashlib.sha256()
    for _ in range(times):
        digest.update(period)
    return digest.hexdigest()


def judge(trial: Trial, answer: Mapping[str, Any], right: Mapping[str, str]) -> None:
    """Judge what :func:`~saf_env.workloads.kernels.memory.stream` returned."""
    for name in ("copy", "triad"):
        trial.expect(
            answer[f"{name}_sha256"] == right[f"{name}_sha256"],
            f"the array that {name} wrote is not the expected one",
        )


def run(place: Placement, trial: Trial) -> None:
    """Run the workload on ``place``, in one task."""
    elements = 2**22 if trial.quick else 2**24  # 32 MiB or 128 MiB an array
    size = {"elements": elements, "passes": 5 if trial.quick else 10}
    with trial.stage("place"):
        place.ready()
    with trial.stage("run"):
        answer = place.run(stream, **size)
    with trial.stage("verify"):
        right = expected(elements)
        judge(trial, answer, right)
    with trial.stage("measure"):
        triads: list[float] = []

        def ours() -> float:
            again = place.run(stream, **size)
            judge(trial, again, right)
            triads.append(elements * 24 / min(again["triad"]) / 1e9)
            return float(elements * 16 / min(again["copy"]) / 1e9)

        def limit() -> float:
            plain = place.plain(stream, [size])[0][0]
            return float(elements * 16 / min(plain["copy"]) / 1e9)

        copy, best, copies = in_turn(ROUNDS, ours, limit)
        trial.note(copy_gb_s=copies, triad_gb_s=triads, array_mib=elements * 8 // 2**20, threads=1)
        trial.measured(copy, "GB/s", limit=best)

"""Workload ``scaling``: one to N workers of a node, each with the same work.

Right: what any number of workers count together is exactly what the driver counts alone, one
stream after the other. Figure: the efficiency ``rate(N) / (N rate(1))`` for N the node's CPUs; on
a node of one CPU it is 1 by definition. The limit is the efficiency of N plain processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from saf_env.workloads.kernels.monte_carlo import count_inside
from saf_env.workloads.placement import Placement
from saf_env.workloads.trial import Trial

SEED = 20260803
ROUNDS = 3

Tasks = Sequence[dict[str, Any]]
Runner = Callable[[Any, Tasks], "tuple[list[Any], float]"]


def worker_counts(cpus: int) -> list[int]:
    """1, 2, 4, ... below ``cpus``, and ``cpus``: every step of doubling, whatever the machine."""
    counts = [1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return counts if cpus == 1 else [*counts, cpus]


def judge(trial: Trial, workers: int, counts: Sequence[int], serial: Sequence[int]) -> None:
    """Judge the counts of ``workers`` streams against the ones made one after the other."""
    trial.expect(
        sum(counts) == sum(serial[:workers]),
        f"{workers} workers counted {sum(counts)} together; one counts {sum(serial[:workers])}",
    )


def efficiency(rates: dict[int, float]) -> float:
    """``rate(N) / (N rate(1))`` for the largest N in ``rates``, rates by number of workers."""
    most = max(rates)
    return rates[most] / (most * rates[1])


def run(place: Placement, trial: Trial) -> None:
    """Run the workload on ``place``: 1, 2, 4, ... up to all of its CPUs at a time."""
    samples = 2**24 if trial.quick else 2**26
    tasks = [{"seed": SEED, "stream": i, "samples": samples} for i in range(place.cpus)]
    steps = worker_counts(place.cpus)
    with trial.stage("place"):
        place.ready()
    with trial.stage("run"):
        counted = {n: place.map(count_inside, tasks[:n]) for n in steps}
    with trial.stage("verify"):
        serial = [count_inside(**task) for task in tasks]
        for n, counts in counted.items():
            judge(trial, n, counts, serial)
    with trial.stage("measure"):

        def rates(runner: Runner, sizes: Sequence[int]) -> dict[int, float]:
            by_size: dict[int, list[float]] = {n: [] for n in sizes}
            for _ in range(ROUNDS):
                for n in sizes:
                    counts, seconds = runner(count_inside, tasks[:n])
                    judge(trial, n, counts, serial)
                    by_size[n].append(samples * n / seconds / 1e6)
            return {n: median(found) for n, found in by_size.items()}

        ours = rates(place.timed, steps)
        plain = rates(place.plain, sorted({1, place.cpus}))
        trial.note(rates={str(n): rate for n, rate in ours.items()}, rate_unit="Msamples/s")
        trial.measured(efficiency(ours), "of linear", limit=efficiency(plain))

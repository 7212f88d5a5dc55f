"""Workload ``pi``: Monte Carlo on every CPU of a node at once.

Right: each stream's count is the same integer in every pass, the first equals the driver's own
count of it, and the estimate lies within five standard deviations of pi. Figure: million samples a
second, all CPUs together.
"""

from __future__ import annotations

import math

from saf_env.workloads.kernels.monte_carlo import count_inside
from saf_env.workloads.placement import Placement
from saf_env.workloads.rounds import in_turn
from saf_env.workloads.trial import Trial

SEED = 20260801
ROUNDS = 3


def tolerance(samples: int) -> float:
    """Five standard deviations of the estimate of pi from ``samples`` points.

    A count is binomial with p = pi/4, so the estimate ``4 count / samples`` has the deviation
    ``sqrt(pi (4 - pi) / samples)``. A right program fails with probability 6e-7, once and for all:
    the seed is fixed. That float32 coordinates lie on a grid of 2**-24 shifts the estimate by less
    than 1e-6, which is five deviations only from 7e13 samples on.
    """
    return 5 * math.sqrt(math.pi * (4 - math.pi) / samples)


def judge(trial: Trial, counts: list[int], samples: int, first: int) -> None:
    """Judge the counts of all streams.

    Args:
        trial: told when the answer is wrong.
        counts: points inside, by stream.
        samples: points of each stream.
        first: the driver's own count of stream 0.
    """
    total = samples * len(counts)
    estimate = 4 * sum(counts) / total
    error, allowed = abs(estimate - math.pi), tolerance(total)
    trial.note(estimate=estimate, error=error, allowed=allowed, samples=total, streams=len(counts))
    trial.expect(
        error <= allowed,
        f"pi came out as {estimate:.6f}, off by {error:.1e}; {total} samples allow {allowed:.1e}",
    )
    trial.expect(
        counts[0] == first,
        f"stream 0 counted {counts[0]} points inside; the driver counts {first} in it",
    )


def run(place: Placement, trial: Trial) -> None:
    """Run the workload on ``place``: one task per CPU, each with a stream of its own."""
    samples = 2**25 if trial.quick else 2**27
    tasks = [{"seed": SEED, "stream": i, "samples": samples} for i in range(place.cpus)]
    with trial.stage("place"):
        place.ready()
    with trial.stage("run"):
        counts = place.map(count_inside, tasks)
    with trial.stage("verify"):
        judge(trial, counts, samples, count_inside(SEED, 0, samples))
    with trial.stage("measure"):
        millions = samples * len(tasks) / 1e6

        def ours() -> float:
            again, seconds = place.timed(count_inside, tasks)
            trial.expect(again == counts, "a second pass over the same streams counted otherwise")
            return millions / seconds

        rate, limit, rates = in_turn(
            ROUNDS, ours, lambda: millions / place.plain(count_inside, tasks)[1]
        )
        trial.note(rates=rates)
        trial.measured(rate, "Msamples/s", limit=limit)

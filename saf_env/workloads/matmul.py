"""Workload ``matmul``: MLX matrix products in float32 on a node, against float64 in the driver.

Right: products of whole numbers are exact, and products of normal random numbers lie within the
error bound of float32. Figure: GFLOPS, 2 n**3 operations a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saf_env.workloads.kernels import matrix
from saf_env.workloads.placement import Placement
from saf_env.workloads.rounds import in_turn
from saf_env.workloads.trial import Trial

SEED = 20260802
ROUNDS = 3
UNIT_ROUNDOFF = 2.0**-24  # float32


def gamma(n: int, unit: float = UNIT_ROUNDOFF) -> float:
    """``n u / (1 - n u)``, the relative error bound of an inner product of length ``n``."""
    return n * unit / (1 - n * unit)


def worst_error(a: Any, b: Any, product: Any) -> float:
    """The largest error of ``product`` as a share of what float32 allows, element by element.

    For any order of summation, with fused operations or without, ``|fl(AB) - AB| <= gamma_n
    |A||B|`` (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.5).
    The float64 reference has an error of its own by the same rule, 2**29 times smaller; it is
    allowed for.

    Args:
        a: the first factor, n-by-n, float32.
        b: the second factor.
        product: the float32 product to judge.

    Returns:
        At most 1 when the product is right; NaN entries give infinity.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    n = a.shape[1]
    bound = (gamma(n) + gamma(n, 2.0**-53)) * (np.abs(a) @ np.abs(b))
    shares = np.abs(product.astype(np.float64) - a @ b) / bound
    return float(np.max(np.where(np.isnan(shares), np.inf, shares)))


def judge(trial: Trial, answer: Mapping[str, Any], n: int) -> None:
    """Judge what :func:`~saf_env.workloads.kernels.matrix.products` returned for size ``n``."""
    for name in ("normal", "whole"):
        made = answer[name]
        trial.expect(
            made.shape == (n, n) and made.dtype == np.float32,
            f"the product is {made.dtype} of shape {made.shape}, not float32 of {n} x {n}",
        )
    a, b = matrix.whole(SEED, n)
    wrong = int(np.count_nonzero(answer["whole"] != a.astype(np.float64) @ b.astype(np.float64)))
    trial.expect(wrong == 0, f"{wrong} of {n * n} whole-number elements are not exact")
    worst = worst_error(*matrix.normal(SEED, n), answer["normal"])
    trial.note(error_of_bound=min(worst, 1e300))
    trial.expect(worst <= 1, f"an element is off by {worst:.3g} times what float32 allows")


def run(place: Placement, trial: Trial) -> None:
    """Run the workload on ``place``, in one task; the size is what the device does in time.

    MLX on Linux carries a reference BLAS of one thread: it is there for correctness, and the size
    keeps it short. On Apple GPUs the largest size is reached.
    """
    seconds, largest = (0.1, 1024) if trial.quick else (0.4, 4096)
    with trial.stage("place"):
        place.ready()
        n = int(place.run(matrix.choose_size, largest=largest, seconds=seconds))
    with trial.stage("run"):
        answer = place.run(matrix.products, seed=SEED, n=n)
    with trial.stage("verify"):
        judge(trial, answer, n)
    with trial.stage("measure"):
        once = place.run(matrix.time_products, n=n, count=1)["seconds"]
        count = max(1, min(100, int(seconds / once)))

        def rate(timing: Mapping[str, Any]) -> float:
            return float(2 * n**3 * count / timing["seconds"] / 1e9)

        size = {"n": n, "count": count}
        ours, limit, rates = in_turn(
            ROUNDS,
            lambda: rate(place.run(matrix.time_products, **size)),
            lambda: rate(place.plain(matrix.time_products, [size])[0][0]),
        )
        trial.note(n=n, gflops=rates, device=answer["device"], mlx=answer["mlx"], dtype="float32")
        trial.measured(ours, "GFLOPS", limit=limit)

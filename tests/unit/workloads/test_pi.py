"""Monte Carlo pi: the kernel counts right, the judge sees what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saf_env.workloads.kernels.monte_carlo import CHUNK, count_inside
from saf_env.workloads.pi import SEED, judge, tolerance
from saf_env.workloads.trial import Trial, WrongAnswerError


def test_the_kernel_counts_what_numpy_counts_at_once() -> None:
    child = np.random.SeedSequence(SEED).spawn(3)[2]
    drawn = np.random.Generator(np.random.PCG64(child)).random((4, CHUNK), dtype=np.float32)
    x, y = drawn[[0, 2]].ravel(), drawn[[1, 3]].ravel()
    assert count_inside(SEED, 2, 2 * CHUNK) == int(np.count_nonzero(x * x + y * y < 1))


def test_five_deviations_of_a_binomial() -> None:
    p = math.pi / 4
    assert tolerance(1000) == pytest.approx(5 * 4 * math.sqrt(p * (1 - p) / 1000))


def test_right_counts_pass() -> None:
    samples = 8 * CHUNK
    counts = [count_inside(SEED, stream, samples) for stream in range(3)]
    trial = Trial("pi", "head")
    judge(trial, counts, samples, counts[0])
    assert trial.details["streams"] == 3
    assert trial.details["error"] <= trial.details["allowed"]


def test_a_biased_count_is_wrong() -> None:
    samples = 2**20
    biased = int(samples * math.pi / 4 * 1.01)
    with pytest.raises(WrongAnswerError, match=r"pi came out as 3\.17"):
        judge(Trial("pi", "head"), [biased], samples, biased)


def test_a_count_that_is_off_by_one_is_wrong() -> None:
    samples = 4 * CHUNK
    count = count_inside(SEED, 0, samples)
    with pytest.raises(WrongAnswerError, match="the driver counts"):
        judge(Trial("pi", "head"), [count + 1], samples, count)

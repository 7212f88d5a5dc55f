"""Memory bandwidth: the arrays are judged byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from saf_env.workloads.bandwidth import expected, judge
from saf_env.workloads.kernels import memory
from saf_env.workloads.trial import Trial, WrongAnswerError

ELEMENTS = 2 * memory.BLOCK


def test_the_kernel_leaves_the_expected_arrays() -> None:
    answer = memory.stream(ELEMENTS, 2)
    judge(Trial("bandwidth", "head"), answer, expected(ELEMENTS))
    assert len(answer["copy"]) == len(answer["triad"]) == 2
    assert min(answer["copy"] + answer["triad"]) > 0


def test_triad_is_exact_in_float64() -> None:
    b, c = memory.pattern(0), memory.pattern(1)
    whole = b.astype(np.int64) + 3 * c.astype(np.int64)
    assert np.array_equal(b + memory.SCALAR * c, whole)
    assert not np.array_equal(b, c)


@pytest.mark.parametrize("name", ["copy", "triad"])
def test_another_array_is_wrong(name: str) -> None:
    right = expected(ELEMENTS)
    other = expected(2 * ELEMENTS)[f"{name}_sha256"]
    with pytest.raises(WrongAnswerError, match=name):
        judge(Trial("bandwidth", "head"), {**right, f"{name}_sha256": other}, right)

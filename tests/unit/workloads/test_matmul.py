"""The judge of matrix products: float32 passes, anything less does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saf_env.workloads.kernels import matrix
from saf_env.workloads.matmul import SEED, gamma, judge, worst_error
from saf_env.workloads.trial import Trial, WrongAnswerError

N = 128


def products(dtype: type[np.floating[Any]] = np.float32) -> dict[str, Any]:
    """What the kernel returns, made by numpy with factors of type ``dtype``."""
    made = {}
    for name, make in (("normal", matrix.normal), ("whole", matrix.whole)):
        a, b = (m.astype(dtype).astype(np.float32) for m in make(SEED, N))
        made[name] = a @ b
    return made


def test_float32_passes() -> None:
    trial = Trial("matmul", "head")
    judge(trial, products(), N)
    assert 0 < trial.details["error_of_bound"] <= 1


def test_half_precision_is_wrong() -> None:
    with pytest.raises(WrongAnswerError, match="are not exact"):
        judge(Trial("matmul", "head"), products(np.float16), N)


def test_one_whole_element_off_by_one_is_wrong() -> None:
    answer = products()
    answer["whole"][3, 4] += 1
    with pytest.raises(WrongAnswerError, match=f"1 of {N * N} whole-number elements"):
        judge(Trial("matmul", "head"), answer, N)


@pytest.mark.parametrize("value", [1e3, np.nan, np.inf])
def test_one_element_outside_the_bound_is_wrong(value: float) -> None:
    answer = products()
    answer["normal"][5, 6] += np.float32(value)
    with pytest.raises(WrongAnswerError, match="an element is off by"):
        judge(Trial("matmul", "head"), answer, N)


def test_another_shape_or_type_is_wrong() -> None:
    answer = products()
    for other in (answer["normal"][1:], answer["normal"].astype(np.float64)):
        with pytest.raises(WrongAnswerError, match="not float32 of 128 x 128"):
            judge(Trial("matmul", "head"), {**answer, "normal": other}, N)


def test_the_bound_is_higham_s() -> None:
    assert gamma(100) == pytest.approx(100 * 2**-24, rel=1e-4)
    one = np.ones((1, 1), np.float32)
    off = one + np.float32(2**-23)
    assert worst_error(one, one, one) == 0
    assert worst_error(one, one, off) == pytest.approx(2, rel=1e-3)


def test_whole_products_stay_below_what_float32_holds() -> None:
    a, b = matrix.whole(SEED, N)
    assert a.max() <= 4095
    assert set(np.unique(b)) == {-1, 0, 1}
    assert 4095 * 4096 < 2**24

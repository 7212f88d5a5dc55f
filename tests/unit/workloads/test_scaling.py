"""Worker scaling: steps, efficiency, and sums that must be the serial ones."""

from __future__ import annotations

import pytest

from saf_env.workloads.rounds import in_turn
from saf_env.workloads.scaling import efficiency, judge, worker_counts
from saf_env.workloads.trial import Trial, WrongAnswerError


@pytest.mark.parametrize(
    ("cpus", "steps"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_steps_double_and_end_at_all(cpus: int, steps: list[int]) -> None:
    assert worker_counts(cpus) == steps


def test_efficiency() -> None:
    assert efficiency({1: 100.0}) == 1
    assert efficiency({1: 100.0, 2: 190.0, 4: 300.0}) == 0.75


def test_the_sum_must_be_the_serial_one() -> None:
    trial = Trial("scaling", "head")
    judge(trial, 2, [3, 4], [3, 4, 5])
    with pytest.raises(WrongAnswerError, match="2 workers counted 6 together; one counts 7"):
        judge(trial, 2, [3, 3], [3, 4, 5])


def test_measurements_take_turns() -> None:
    order: list[str] = []
    ours = iter([1.0, 9.0, 2.0])

    def mine() -> float:
        order.append("ours")
        return next(ours)

    def limit() -> float:
        order.append("limit")
        return 4.0

    assert in_turn(3, mine, limit) == (2.0, 4.0, [1.0, 9.0, 2.0])
    assert order == ["ours", "limit"] * 3

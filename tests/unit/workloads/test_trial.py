"""What a workload reports becomes its outcome."""

from __future__ import annotations

import math

import pytest

from saf_env.workloads.trial import Trial, WorkloadTimeoutError, WrongAnswerError


def test_stages_are_timed_and_add_up() -> None:
    trial = Trial("pi", "head")
    for name in ("place", "run", "run"):
        with trial.stage(name):
            assert trial.stage_now == name
    outcome = trial.outcome("right")
    assert list(outcome.stages) == ["place", "run"]
    assert all(seconds >= 0 for seconds in outcome.stages.values())
    assert trial.stage_now == ""


def test_a_failure_names_its_stage() -> None:
    trial = Trial("pi", "head")
    with pytest.raises(WrongAnswerError, match="pi is 4"), trial.stage("verify"):
        trial.expect(False, "pi is 4")
    outcome = trial.outcome("wrong", "pi is 4")
    assert outcome.message == "stage verify: pi is 4"
    assert "verify" in outcome.stages


def test_a_right_answer_raises_nothing() -> None:
    Trial("pi", "head").expect(True, "never said")


def test_time_runs_out() -> None:
    assert 0 < Trial("pi", "head", timeout=60).seconds_left() <= 60
    with pytest.raises(WorkloadTimeoutError, match="not done after 0 s") as caught:
        Trial("pi", "head", timeout=0).seconds_left()
    assert caught.value.node == "head"


@pytest.mark.parametrize(("higher", "share"), [(True, 0.5), (False, 2.0)])
def test_share_of_the_limit(higher: bool, share: float) -> None:
    trial = Trial("pi", "head")
    trial.measured(50, "GB/s", limit=100, higher_is_better=higher)
    outcome = trial.outcome("right")
    assert (outcome.figure, outcome.limit, outcome.share) == (50.0, 100.0, share)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_no_figure_that_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="is no figure"):
        Trial("pi", "head").measured(value, "GB/s")
    with pytest.raises(ValueError, match="is no figure"):
        Trial("pi", "head").measured(1.0, "GB/s", limit=value)


@pytest.mark.parametrize("detail", [math.nan, object(), {1j: 2}])
def test_details_must_be_json(detail: object) -> None:
    trial = Trial("pi", "head")
    with pytest.raises((TypeError, ValueError)):
        trial.note(detail=detail)
    assert trial.details == {}

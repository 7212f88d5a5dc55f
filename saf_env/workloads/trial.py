"""One trial: a workload on a node, from its start to its outcome.

In: what the workload says while it runs. Out: an :class:`~saf_env.workloads.outcome.Outcome`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from saf_env.errors import WorkloadError
from saf_env.workloads.outcome import Answer, Outcome
from saf_env.workloads.text import one_line

DEFAULT_TIMEOUT = 120.0


class WrongAnswerError(WorkloadError):
    """The workload came to an end and its answer is not the right one."""


class WorkloadTimeoutError(WorkloadError):
    """The workload's time was over before it came to its end."""


class NodeLostError(WorkloadError):
    """The node is not part of the cluster, or left it."""


class Trial:
    """What a workload reports to while it runs.

    Attributes:
        workload, node: names.
        timeout: seconds that the whole trial may take.
        quick: whether to use small sizes.
        details: further facts for the report; add with :meth:`note`.
        stages: seconds by stage.
        stage_now: the stage that is running, or that failed; empty between stages.
    """

    def __init__(
        self, workload: str, node: str, *, timeout: float = DEFAULT_TIMEOUT, quick: bool = False
    ) -> None:
        self.workload = workload
        self.node = node
        self.timeout = timeout
        self.quick = quick
        self.details: dict[str, Any] = {}
        self.stages: dict[str, float] = {}
        self.stage_now = ""
        self._started = time.monotonic()
        self._figure: dict[str, Any] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and name it in a failure: place, run, verify, measure."""
        self.stage_now = name
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - started
        self.stage_now = ""  # only when it did not fail

    def seconds_left(self) -> float:
        """Seconds until the trial's time is over.

        Raises:
            WorkloadTimeoutError: it is over.
        """
        left = self._started + self.timeout - time.monotonic()
        if left <= 0:
            raise WorkloadTimeoutError(
                f"not done after {self.timeout:g} s",
                node=self.node,
                hint="In stage place, other work holds the node's CPUs.",
            )
        return left

    def expect(self, right: bool, message: str) -> None:
        """Judge the answer.

        Raises:
            WrongAnswerError: ``right`` is false; ``message`` says what is wrong with it.
        """
        if not right:
            raise WrongAnswerError(message, node=self.node)

    def note(self, **details: Any) -> None:
        """Add facts to the report.

        Raises:
            ValueError, TypeError: one of them is not a JSON value.
        """
        json.dumps(details, allow_nan=False)
        self.details.update(details)

    def measured(
        self, figure: float, unit: str, *, limit: float | None = None, higher_is_better: bool = True
    ) -> None:
        """Record the figure of merit, and the node's own limit where one was measured.

        Raises:
            ValueError: one of them is not a positive finite number.
        """
        for value in (figure,) if limit is None else (figure, limit):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{value} {unit} is no figure")
        share = None
        if limit is not None:
            share = float(figure / limit if higher_is_better else limit / figure)
        self._figure = {
            "figure": float(figure),
            "unit": unit,
            "higher_is_better": higher_is_better,
            "limit": None if limit is None else float(limit),
            "share": share,
        }

    def outcome(self, verdict: Answer, message: str = "") -> Outcome:
        """The outcome as things stand; ``message`` is put behind the stage that failed."""
        if message and self.stage_now:
            message = f"stage {self.stage_now}: {message}"
        return Outcome(
            workload=self.workload,
            node=self.node,
            verdict=verdict,
            seconds=time.monotonic() - self._started,
            stages=dict(self.stages),
            details=dict(self.details),
            message=one_line(message, 1000),
            **self._figure,
        )

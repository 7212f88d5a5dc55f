"""Collects the outcome of every test, tells of it on the terminal, and keeps the report written."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pytest

import saf_env
from saf_env.errors import SafEnvError
from saf_env.harness.live import Live
from saf_env.workloads.outcome import Answer, Outcome, Report
from saf_env.workloads.text import figure_text, one_line
from saf_env.workloads.trial import Trial, WrongAnswerError

TRIAL = pytest.StashKey[Trial]()
WRONG = (WrongAnswerError, AssertionError, pytest.fail.Exception)


def names(item: pytest.Item) -> tuple[str, str]:
    """Workload and node of a test: ``test_pi[head]`` is ``pi`` on ``head``."""
    node = getattr(item, "callspec", None)
    node = node.params.get("node") if node else None
    workload = getattr(item, "originalname", item.name).removeprefix("test_")
    return workload, getattr(node, "name", "")


def reason(error: BaseException) -> str:
    """What an exception says, on one line; of one that a Ray task raised, what was raised there."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    if isinstance(error, SafEnvError):
        return one_line(f"{error.message}{'. ' if error.hint else ''}{error.hint}")
    if isinstance(error, (AssertionError, pytest.fail.Exception)) and str(error):
        return one_line(str(error))
    return one_line(f"{type(error).__name__}: {error}")


def environment() -> dict[str, str]:
    """Versions of what the driver runs on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("ray", "numpy", "pytest"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return {**found, "saf-env": saf_env.__version__}


class Recorder:
    """The hooks that watch a run; one for each session with a run folder.

    Attributes:
        outcomes: by test id, in the order they ended.
    """

    def __init__(self, live: Live, folder: Path, config: pytest.Config) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._live = live
        self._folder = folder
        self._config = config
        self._started = datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._running: pytest.Item | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Say which test runs, and what came of it."""
        self._running = item
        workload, node = names(item)
        self._say(f"{workload} on {node} ... " if node else f"{workload} ... ")
        result = yield
        self._running = None
        self._say(_line(self.outcomes[item.nodeid]) + "\n")
        self._write("failed")  # as long as the run has not come to its end
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge a phase: of a test that passed, the call; else the phase that failed."""
        report = yield
        if report.when == "call" or not report.passed:
            outcome = _outcome(item, call, report)
            self.outcomes[item.nodeid] = outcome
            # JUnit takes them from the last phase, whose report copies them from the test.
            ours = {key: getattr(outcome, key) for key in ("verdict", "figure", "unit", "share")}
            others = [pair for pair in item.user_properties if pair[0] not in ours]
            item.user_properties[:] = [*others, *ours.items()]
            report.user_properties = list(item.user_properties)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected is an outcome too."""
        if report.failed:
            last = (report.longreprtext.strip().splitlines() or ["no reason given"])[-1]
            name = report.nodeid.rpartition("/")[2]
            self.outcomes[report.nodeid] = Outcome(name, "", "error", 0.0, message=one_line(last))
            self._say(f"{name} cannot be collected: {one_line(last)}\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Keep pytest's own letters off the line."""
        return (str(report.outcome), "", "") if report.when == "call" or report.failed else None

    def pytest_keyboard_interrupt(self) -> None:
        """The test that was running has an outcome too."""
        if self._running:
            outcome = _trial(self._running).outcome("error", "interrupted")
            self.outcomes[self._running.nodeid] = outcome
            self._say("interrupted\n")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the report, unless there is nothing to report."""
        right = all(o.verdict == "right" for o in self.outcomes.values())
        if self.outcomes:
            self._write("ok" if right and exitstatus == pytest.ExitCode.OK else "failed")

    def _write(self, verdict: Literal["ok", "failed"]) -> None:
        report = Report(
            run=self._folder.name,
            cluster=self._live.cluster,
            started=self._started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - self._clock,
            verdict=verdict,
            nodes=tuple(node.to_json() for node in self._live.nodes),
            outcomes=tuple(self.outcomes.values()),
            environment=environment(),
        )
        text = json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
        new = self._folder / "report.json.new"
        new.write_text(text, "utf-8")
        os.replace(new, self._folder / "report.json")

    def _say(self, text: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write(text, flush=True)


def _trial(item: pytest.Item) -> Trial:
    return item.stash.get(TRIAL, None) or Trial(*names(item))


def _outcome(item: pytest.Item, call: pytest.CallInfo[None], report: Any) -> Outcome:
    error = call.excinfo.value if call.excinfo else None
    verdict: Answer = "right"
    if error is not None:
        verdict = "wrong" if report.when == "call" and isinstance(error, WRONG) else "error"
    outcome = _trial(item).outcome(verdict, reason(error) if error else "")
    # A test that never asked for its trial is timed by pytest.
    return outcome if TRIAL in item.stash else replace(outcome, seconds=call.duration)


def _line(outcome: Outcome) -> str:
    parts: list[str] = [outcome.verdict]
    if outcome.figure is not None:
        parts.append(figure_text(outcome.figure, outcome.unit))
    if outcome.share is not None:
        parts.append(f"{outcome.share:.2f} of the node's limit")
    return ", ".join([*parts, f"{outcome.seconds:.1f} s"])

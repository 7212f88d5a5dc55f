"""The controller's side of a run, as far as it needs no process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saf_env.errors import WorkloadError
from saf_env.harness.runner import SUITE, command, require_right


def report(verdict: str, *outcomes: tuple[str, str, str]) -> dict[str, Any]:
    keys = ("workload", "node", "verdict")
    return {"verdict": verdict, "outcomes": [dict(zip(keys, o, strict=True)) for o in outcomes]}


def test_the_command_line() -> None:
    argv = command(Path("/l"), Path("/py"), Path("/run"), ["head", "-x"], True, SUITE)
    assert argv[:5] == ["/py", "-m", "pytest", "-p", "saf_env.harness.plugin"]
    assert "--saf-quick" in argv
    assert argv[-1] == str(SUITE)
    assert argv[-3:-1] == ["--saf-select=head", "--saf-select=-x"], "a word is never an option"


def test_the_suite_is_there() -> None:
    assert (SUITE / "pytest.ini").is_file()
    assert list(SUITE.glob("test_*.py"))


def test_all_right_is_right() -> None:
    require_right(report("ok", ("pi", "head", "right")))


def test_what_failed_is_named() -> None:
    bad = report("failed", ("pi", "head", "right"), ("pi", "linux", "wrong"), ("all", "", "error"))
    with pytest.raises(WorkloadError, match="2 of 3 workloads failed: pi on linux, all") as caught:
        require_right(bad)
    assert caught.value.exit_code == 7


def test_a_run_cut_short_is_no_success() -> None:
    with pytest.raises(WorkloadError, match="cut short"):
        require_right(report("failed", ("pi", "head", "right")))

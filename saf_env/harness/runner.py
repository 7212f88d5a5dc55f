"""The controller's side: run the suite in the driver's environment, hand back its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env.errors import CommandTimeoutError, UsageError, WorkloadError
from saf_env.transports.base import Transport
from saf_env.workloads.outcome import Report

PROJECT = Path(__file__).resolve().parents[2]
SUITE = PROJECT / "tests" / "cluster"
TIMEOUT = 3600.0  # of the whole suite; each test has a limit of its own
PYTEST_USAGE = (4, 5)  # pytest's exit codes for bad usage and for no test at all


def command(
    live_file: Path,
    driver_python: Path,
    run_dir: Path,
    selection: Sequence[str],
    quick: bool,
    suite: Path,
) -> list[str]:
    """The pytest command line; all paths absolute."""
    return [
        *(str(driver_python), "-m", "pytest", "-p", "saf_env.harness.plugin"),
        *("-c", str(suite / "pytest.ini"), f"--rootdir={suite}", "-p", "no:cacheprovider"),
        # One line a test is ours; what failed and why is in the report and in junit.xml.
        *("-qq", "--no-header", "--no-summary", "--disable-warnings", "--tb=short"),
        f"--junitxml={run_dir / 'junit.xml'}",
        f"--saf-live={live_file}",
        f"--saf-run-dir={run_dir}",
        *(["--saf-quick"] if quick else []),
        *(f"--saf-select={word}" for word in selection),
        str(suite),
    ]


def run_suite(  # noqa: PLR0913 - one argument for each thing that a run needs to be told
    live_file: Path,
    driver_python: Path,
    run_dir: Path,
    selection: Sequence[str],
    transport: Transport,
    env: Mapping[str, str],
    *,
    quick: bool = False,
    show: bool = True,
    suite: Path = SUITE,
) -> dict[str, Any]:
    """Run the workload suite on a live cluster.

    The report comes back also when workloads failed, so that it can be shown;
    :func:`require_right` then says so.

    Args:
        live_file: which cluster, which nodes (:mod:`saf_env.harness.live`).
        driver_python: interpreter of the driver's environment.
        run_dir: an existing folder, for ``report.json`` and ``junit.xml``.
        selection: words of :mod:`saf_env.harness.selection`.
        transport: of this machine.
        env: environment of the driver, the token's variables among it.
        quick: small sizes.
        show: let the suite say on our own output what it does.
        suite: folder with a ``pytest.ini`` and tests.

    Returns:
        The report, as ``saf_env/schemas/report.json`` describes it.

    Raises:
        UsageError: no test was selected, or the suite is not there.
        WorkloadError: the suite ended without a report, or not in time.
    """
    if not (suite / "pytest.ini").is_file():
        raise UsageError(
            f"the workload suite is not in {suite}", hint="Run saf-env from its own checkout."
        )
    live_file, run_dir = live_file.absolute(), run_dir.absolute()
    argv = command(live_file, driver_python.absolute(), run_dir, selection, quick, suite.absolute())
    # Ray hands the driver's working folder to workers on this machine as a place to import from.
    variables = {**env, "PYTHONPATH": str(PROJECT), "PYTHONSAFEPATH": "1"}
    call = transport.stream if show else transport.run
    try:
        result = call(argv, env=variables, timeout=TIMEOUT, cwd=str(run_dir))
    except CommandTimeoutError:
        raise WorkloadError(
            f"the suite was not done after {TIMEOUT:g} s", hint=f"What it saw is in {run_dir}."
        ) from None
    if result.code in PYTEST_USAGE:
        raise UsageError(
            "no test of the suite was selected",
            hint="Select by node, by workload, or by test id; `saf-env test` alone runs all.",
        )
    return _load(run_dir / "report.json", result.code)


def _load(path: Path, code: int) -> dict[str, Any]:
    try:
        return Report.from_json(json.loads(path.read_text("utf-8")), str(path)).to_json()
    except (OSError, ValueError):
        raise WorkloadError(
            f"the suite ended with code {code} and left no report",
            hint="What it printed above says why.",
        ) from None


def require_right(report: Mapping[str, Any]) -> None:
    """Do nothing when every outcome is right.

    Raises:
        WorkloadError: one is wrong or an error, or the run did not come to its end.
    """
    if report["verdict"] == "ok":
        return
    bad = [o for o in report["outcomes"] if o["verdict"] != "right"]
    named = ", ".join(o["workload"] + (f" on {o['node']}" if o["node"] else "") for o in bad)
    total = len(report["outcomes"])
    raise WorkloadError(
        f"{len(bad)} of {total} workloads failed: {named}" if bad else "the run was cut short",
        hint="The report says why, node by node; `saf-env logs` has the nodes' side.",
    )

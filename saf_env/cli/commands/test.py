"""``saf-env test``: the workload suite on the running cluster, and its report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, print_json
from saf_env.cluster import state as states
from saf_env.cluster.look import Look, look
from saf_env.errors import BringUpError, ToolchainError, UsageError, WorkloadError
from saf_env.plan.model import NodePlan
from saf_env.provision.folders import Notify, write_atomically


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Run the suite and draw its report; exit code 7 when a workload is wrong."""
    from saf_env.harness.runner import require_right, run_suite
    from saf_env.report import runs

    context.fresh_lock()
    with Progress() as progress:
        progress.step("looking at the cluster")
        seen = look(context)
        _require_ready(context, seen)
        make_driver(context, progress.step)
    live = _write_live(context, seen)
    folder = runs.new_run(context.home / ".saf" / "runs")
    try:
        report = run_suite(
            live,
            context.plan.driver.python,
            folder,
            arguments.select,
            context.transport,
            _variables(context),
            quick=arguments.quick,
            show=not arguments.json,
        )
    except UsageError:
        shutil.rmtree(folder, ignore_errors=True)  # nothing was selected, so nothing was run
        raise
    runs.prune(context.home / ".saf" / "runs")
    if arguments.json:
        print_json(report)
        return 0 if report["verdict"] == "ok" else WorkloadError.exit_code
    from saf_env.report.model import read
    from saf_env.report.terminal import draw

    draw(read(folder / "report.json"))
    print(f"report: {(folder / 'report.json').relative_to(context.home)}, junit.xml beside it")
    require_right(report)
    return 0


def _require_ready(context: Context, seen: Look) -> None:
    states_seen = [f"{s.node.name} is {s.state}" for s in seen.nodes if s.state != "ready"]
    if states_seen:
        raise BringUpError(
            f"cluster {context.plan.name} is not ready: {', '.join(states_seen)}",
            hint="run `saf-env up`, then `saf-env test` again",
        )


def make_driver(context: Context, step: Notify) -> None:
    """Make the environment of the suite's driver, unless it is there."""
    from saf_env.provision.environments import ensure_environment

    plan = context.plan
    try:
        ensure_environment(plan.driver, context.uv, step)
    except ToolchainError as error:
        if context.controls or plan.driver.interpreter.source != "system":
            raise
        from saf_env.cluster.prepare import only_from_elsewhere

        raise only_from_elsewhere(plan, "test", "which has it") from error


def _write_live(context: Context, seen: Look) -> Path:
    """Tell the suite which cluster runs; see :mod:`saf_env.harness.live`."""
    plan = context.plan
    nodes = [
        {
            "name": s.node.name,
            "host": s.node.host,
            "kind": s.node.kind,
            "role": s.node.role,
            "platform": s.node.platform,
            "groups": list(s.node.groups),
            "cpus": seen.ray[s.node.name].resources.get("CPU"),
            "fingerprint": s.fingerprint,
            "node_id": seen.ray[s.node.name].id,
        }
        for s in seen.nodes
    ]
    value = {
        "schema": 1,
        "cluster": plan.name,
        "address": plan.address,
        "node_ip": _driver_node(context).advertise,
        "head": plan.head.name,
        "nodes": nodes,
    }
    path = states.folder(context.place, plan.name) / "live.json"
    write_atomically(path, json.dumps(value, indent=2))
    return path


def _variables(context: Context) -> dict[str, str]:
    """The driver's environment: the head's variables, and what pytest needs of the terminal."""
    names = ("COLUMNS", "HOME", "LANG", "LC_ALL", "NO_COLOR", "TERM", "TZ", "USER")
    inherited = {k: v for k in names if (v := os.environ.get(k)) is not None}
    path = f"{context.plan.driver.path / 'bin'}:/usr/bin:/bin"
    return {**inherited, "PATH": path, **_driver_node(context).variables}


def _driver_node(context: Context) -> NodePlan:
    """The node of this machine that the suite's driver attaches to.

    Raises:
        UsageError: there is none: Ray's drivers need a native node beside them.
    """
    node = context.plan.driver_node
    if node is None:
        raise UsageError(
            f"the suite runs beside a native node, and {context.here} has none",
            hint="add a native node of this machine to the cluster file; a driver of your own can "
            "run in a container: `docker exec`",
        )
    return node

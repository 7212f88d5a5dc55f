"""The benchmarks run and print what they should. How long anything takes is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.isolated import timed_in, unshare
from benchmarks.measure import CommandFailedError

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_table() -> None:
    done = bench("help", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    for word in ("saf-env --help", "python -c pass", "4x"):
        assert word in done.stdout


def test_json_has_all_times() -> None:
    done = bench("lock", "lock-fresh", "--rounds", "2", "--warm-up", "0", "--json")
    assert done.returncode == 0, done.stderr
    results = {one["name"]: one for one in json.loads(done.stdout)["results"]}
    assert set(results) == {"lock", "lock-fresh"}
    for one in results.values():
        assert len(one["ours"]["seconds"]) == len(one["plain"]["seconds"]) == 2
        assert one["ratio"] == one["ours"]["median"] / one["plain"]["median"]
        assert isinstance(one["within"], bool)
    assert not any((ROOT / ".saf" / "bench").iterdir()), "nothing is left behind"


def test_checks_are_measured() -> None:
    names = ["check", "check-first", "check-many", "files", "files-deep"]
    done = bench(*names, "--rounds", "1", "--warm-up", "0", "--json")
    assert done.returncode == 0, done.stderr
    results = {one["name"]: one for one in json.loads(done.stdout)["results"]}
    assert list(results) == names
    # Which of them is quicker is not judged, but that looking is quicker than hashing.
    assert results["files"]["ours"]["median"] < results["files"]["plain"]["median"]


def test_unknown_name() -> None:
    done = bench("nonsense")
    assert done.returncode == 2
    assert "lock-fresh" in done.stderr


@pytest.mark.parametrize("namespace", [[], unshare() or []], ids=["without", "in a namespace"])
def test_commands_are_timed_apart(namespace: list[str], tmp_path: Path) -> None:
    # In a namespace, the process that runs this test cannot be seen, let alone stopped.
    seen = f"kill -0 {os.getpid()}"
    commands = [command("alone", f"! {seen}" if namespace else seen), command("sleep", "sleep 0.1")]
    seconds = timed_in(namespace, commands, tmp_path)
    assert list(seconds) == ["alone", "sleep"]
    assert seconds["sleep"] > 0.1
    with pytest.raises(CommandFailedError, match="said something"):
        timed_in(namespace, [command("broken", "echo said something; exit 3")], tmp_path)


def command(name: str, script: str) -> dict[str, Any]:
    return {"name": name, "argv": ["sh", "-c", script], "env": {"PATH": os.environ["PATH"]}}

"""Folders of runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.errors import UsageError
from saf_env.report.runs import all_runs, find, new_run, prune, run_id


def made(runs: Path, count: int) -> list[Path]:
    folders = [new_run(runs) for _ in range(count)]
    for folder in folders:
        (folder / "report.json").write_text("{}", "utf-8")
    return folders


@given(st.datetimes(), st.datetimes())
def test_ids_sort_by_time(one: datetime, other: datetime) -> None:
    zone = timezone.utc
    first, second = (run_id(t.replace(tzinfo=zone, year=2000 + t.year % 100)) for t in (one, other))
    times = [t.replace(year=2000 + t.year % 100) for t in (one, other)]
    assert (first < second) == (times[0] < times[1])


def test_an_id_is_utc() -> None:
    there = timezone(timedelta(hours=2))
    assert run_id(datetime(2026, 8, 1, 1, 2, 3, 45, there)) == "20260731-230203-000045"


def test_new_runs_are_private_and_in_order(tmp_path: Path) -> None:
    folders = made(tmp_path / "runs", 5)
    assert all_runs(tmp_path / "runs") == sorted(folders) == folders
    assert folders[0].stat().st_mode & 0o777 == 0o700


def test_find(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run yet"):
        find(tmp_path)
    first, last = made(tmp_path, 2)
    new_run(tmp_path)  # without a report
    assert find(tmp_path) == last
    assert find(tmp_path, first.name) == first
    for name in ("20200101-000000-000000", "../x", ""):
        with pytest.raises(UsageError, match="there is no run"):
            find(tmp_path, name)


def test_prune_keeps_the_newest_and_what_is_not_a_run(tmp_path: Path) -> None:
    folders = made(tmp_path, 4)
    (tmp_path / "notes").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "20200101-000000-000000"
    link.symlink_to(outside)
    assert prune(tmp_path, keep=2) == folders[:2]
    assert all_runs(tmp_path) == folders[2:]
    assert link.is_symlink()
    assert outside.is_dir()
    assert prune(tmp_path, keep=2) == []


def test_no_folder_is_no_run(tmp_path: Path) -> None:
    assert all_runs(tmp_path / "none") == prune(tmp_path / "none") == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", "utf-8")
    with pytest.raises(UsageError, match="no run can be recorded"):
        new_run(tmp_path / "runs")

"""The folders of runs, ``.saf/runs/<run-id>``: made, found, and the oldest removed."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

from saf_env.errors import UsageError

KEEP = 20
_ID = re.compile(r"\d{8}-\d{6}-\d{6}")  # sorts as text in the order of time


def run_id(now: datetime) -> str:
    """Id of a run that starts at ``now``: UTC to the microsecond, ``20260801-121314-567890``."""
    return now.astimezone(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")


def new_run(runs: Path) -> Path:
    """Make the folder of a run that starts now, readable by its owner alone.

    Args:
        runs: the folder of all runs; made when it is missing.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            folder = runs / run_id(datetime.now(timezone.utc))
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue  # another run began in this microsecond
            return folder
    except OSError as error:
        raise UsageError(
            f"no run can be recorded in {runs}: {error.strerror}",
            hint="Make the folder writable, or run from a project folder that is.",
        ) from None


def all_runs(runs: Path) -> list[Path]:
    """Folders of the runs that left a report, oldest first."""
    return [folder for folder in _folders(runs) if (folder / "report.json").is_file()]


def find(runs: Path, name: str | None = None) -> Path:
    """The folder of the run ``name``, of the newest one without a name.

    Raises:
        UsageError: there is no such run.
    """
    found = all_runs(runs)
    if name is None and found:
        return found[-1]
    for folder in found:
        if folder.name == name:
            return folder
    hint = f"The newest is {found[-1].name}." if found else "`saf-env test` makes one."
    raise UsageError(f"there is no run {name}" if name else "there is no run yet", hint=hint)


def prune(runs: Path, keep: int = KEEP) -> list[Path]:
    """Remove all but the newest ``keep`` runs; only folders named like a run are touched.

    Returns:
        What was removed, oldest first; a folder that cannot be removed stays, for the next time.
    """
    folders = _folders(runs)
    removed = []
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            removed.append(folder)
    return removed


def _folders(runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    return sorted(
        p for p in runs.iterdir() if _ID.fullmatch(p.name) and p.is_dir() and not p.is_symlink()
    )

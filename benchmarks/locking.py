"""``saf-env lock`` beside the uv resolution in it: same requirements, cache and versions kept."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from benchmarks.measure import Pair, Subject, timed
from benchmarks.project import CLUSTER, Project
from saf_env.lock import resolve
from saf_env.lock.files import read
from saf_env.lock.make import preferred
from saf_env.spec.model import ClusterSpec
from saf_env.uv import find_uv

NAME = "lock"
ROUNDS = 5
SUBJECTS = (
    Subject("lock", "saf-env lock, the first", "uv lock", 1.2, "ratio"),
    Subject("lock-changed", "saf-env lock, changed", "uv lock", 1.2, "ratio"),
    Subject("lock-fresh", "saf-env lock, unchanged", "uv lock", 0.3, "seconds"),
)


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement of each subject a round, for ever."""
    folder = project.home / "lockfiles" / CLUSTER
    while True:
        spec = project.write()
        shutil.rmtree(folder, ignore_errors=True)
        first = project.saf_env("lock"), _uv_lock(project, spec, {})
        fresh = project.saf_env("lock"), _uv_lock(project, spec, None)
        keep = preferred([path.read_text() for path in folder.glob("environments/*.txt")])
        spec = project.write("packaging")  # Ray needs it anyhow: nothing more to download
        changed = project.saf_env("lock"), _uv_lock(project, spec, keep)
        yield {"lock": first, "lock-fresh": fresh, "lock-changed": changed}


def _uv_lock(project: Project, spec: ClusterSpec, keep: dict[str, str] | None) -> float:
    """How long uv takes for what ``saf-env lock`` has it resolve.

    Args:
        project: where ``spec`` is locked.
        spec: what is resolved.
        keep: versions to keep, as ``saf-env lock`` hands them over; None leaves uv's lock in place.
    """
    folder = project.home / "uv"
    python = read(project.home, CLUSTER).python
    uv = find_uv(project.home, project.env)
    if keep is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "pyproject.toml").write_text(resolve.project(spec, python))
    if keep:
        (folder / "uv.lock").write_text(resolve.preferences(spec, python, keep))
    argv = [str(uv.binary), "lock", "--quiet", "--python", sys.executable]
    return timed(argv, env=uv.variables(), cwd=folder)

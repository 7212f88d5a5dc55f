"""A project folder that this user cannot write in: refused, with the reason."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Project


def as_nobody(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``saf-env`` as a user who may read everything and write nothing there."""
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run(
        [*words, *project.command(*arguments)],
        cwd=project.home,
        env={**project.variables(), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def readable(main_project: Project) -> Iterator[Project]:
    """Every folder above the project lets everybody through."""
    main_project.ok("down")
    home = main_project.home.resolve()
    folders = [f for f in home.parents if f.stat().st_uid == os.getuid() and f != Path("/")]
    modes = {f: f.stat().st_mode for f in folders}
    for folder in folders:
        folder.chmod(modes[folder] | 0o055)
    yield main_project
    for folder in folders:
        folder.chmod(modes[folder])


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_folder_that_cannot_be_written_is_refused(readable: Project, command: str) -> None:
    refused = as_nobody(readable, command)

    assert refused.returncode in (2, 3), refused.stderr
    assert "cannot write" in refused.stderr
    assert "what to do" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert readable.processes() == []

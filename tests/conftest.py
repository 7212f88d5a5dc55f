"""Rules for every test: in CI a skipped test is a failed one, and what runs beside what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("noisy", deadline=None)  # these machines are slow by turns
settings.load_profile("noisy")
os.environ.pop("COLUMNS", None)  # pytest-xdist's: what tests print is for no terminal

HERE = Path(__file__).parent
# These share the Docker engine of this machine, its images and clusters.
ENGINE = "compose_config", "engine", "image_refusals", "images", "mixed", "mixed_faults"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test in a lane: pytest-xdist runs lanes beside each other, half of it is waiting."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lane(item.path)))


def lane(file: Path) -> str:
    """What the tests of ``file`` share: a cluster, machines that ssh knows by name, a folder."""
    folder, name = file.parent.relative_to(HERE), file.stem.removeprefix("test_")
    if folder == Path("hosts"):
        return "engine" if name in ENGINE else "machines"
    return name if folder.parts[0] == "unit" else str(folder)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when CI skipped anything: what was not run there was not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""Rules for every test: in CI a skipped test is a failed one, and what runs beside what."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("noisy", deadline=None)  # these machines are slow by turns
settings.load_profile("noisy")
os.environ.pop("COLUMNS", None)  # pytest-xdist's: what tests print is for no terminal

# These share the Docker engine of this machine, its images and clusters.
ENGINE = "compose_config", "engine", "image_refusals", "images", "mixed", "mixed_faults"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Let pytest-xdist run lanes beside each other, and never two tests of one lane."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return lane(PurePosixPath(nodeid.partition("::")[0]))

    return Lanes(config, log)


def lane(file: PurePosixPath) -> str:
    """What the tests of ``file`` share: a cluster, machines that ssh knows by name, a folder."""
    folder, name = str(file.parent), file.stem.removeprefix("test_")
    if folder == "tests/hosts":
        return "engine" if name in ENGINE else "machines"
    return str(file) if folder.startswith("tests/unit") else folder


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when CI skipped anything: what was not run there was not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

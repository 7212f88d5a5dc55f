"""Rules for every test: in CI a skipped test is a failed one."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("noisy", deadline=None)  # these machines are slow by turns
settings.load_profile("noisy")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when CI skipped anything: what was not run there was not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

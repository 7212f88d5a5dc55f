"""uv's own words, and what the user is told to do."""

from __future__ import annotations

import pytest

from saf_env.provision.failures import failed
from saf_env.transports.base import CommandResult


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("error: failed to write: No space left on device (os error 28)", "free some GB"),
        ("Hash mismatch for `six==1.17.0`", "another file"),
        ("idna was not found in the cache\n... the network was disabled", "SAF_ENV_CACHE"),
        ("error sending request for url", "cannot be reached"),
        ("something that nobody has seen", "what uv said"),
    ],
)
def test_the_hint_fits(said: str, hint: str) -> None:
    result = CommandResult(("uv",), "alpha", 2, "", said, 0.1)
    error = failed("install base", result)
    assert hint in error.hint
    assert error.message.startswith("alpha: cannot install base:\n")
    assert said in error.message
    assert error.exit_code == 3

"""Interpreters without any: what is told of one that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.errors import ToolchainError
from saf_env.provision.interpreters import examine
from saf_env.uv import Uv


def test_one_that_does_not_come_to_an_end_is_a_fault_of_the_toolchain(stalled_uv: Uv) -> None:
    with pytest.raises(ToolchainError, match="did not finish within 60 s"):
        examine(Path("/python"), stalled_uv)

"""One at a time: who waits is told, and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.alone import alone
from saf_env.errors import BusyError, SafEnvError, ToolchainError


def unwritable(error: Exception) -> SafEnvError:
    return ToolchainError(str(error))


def test_who_waits_is_told_and_gives_up(tmp_path: Path) -> None:
    file, told = tmp_path / "new" / "lock", list[str]()

    with (
        alone(file, "making x", wait=1.0, unwritable=unwritable),
        pytest.raises(BusyError, match="another saf-env has been making x for longer than 0 s"),
        alone(file, "making x", wait=0.05, unwritable=unwritable, notify=told.append),
    ):
        pass

    assert told == ["another saf-env is making x; waiting for it"]
    with alone(file, "making x", wait=0.0, unwritable=unwritable, notify=told.append):
        assert len(told) == 1


def test_it_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone(tmp_path / "a", "x", wait=0.0, unwritable=unwritable):
        raise KeyError
    with alone(tmp_path / "a", "x", wait=0.0, unwritable=unwritable):
        pass


def test_the_caller_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ToolchainError, match="file"),
        alone(tmp_path / "file" / "lock", "x", wait=0.0, unwritable=unwritable),
    ):
        pass

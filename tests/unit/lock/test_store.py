from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.errors import BusyError, LockError
from saf_env.lock import store

OLD, NEW = {"lock.toml": "old\n", "a/b.txt": "x\n"}, {"lock.toml": "new\n"}


def content(home: Path) -> dict[str, str]:
    folder = store.lock_folder(home, "c")
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def leftovers(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "lockfiles").iterdir() if p.name != "c")


def test_a_new_lock_takes_the_place_of_the_old(tmp_path: Path) -> None:
    store.write(tmp_path, "c", OLD)
    assert content(tmp_path) == OLD
    store.write(tmp_path, "c", NEW)
    assert content(tmp_path) == NEW
    assert leftovers(tmp_path) == []


def test_killed_before_the_first_rename(tmp_path: Path) -> None:
    store.write(tmp_path, "c", OLD)
    half = tmp_path / "lockfiles" / ".c.new"
    half.mkdir()
    (half / "half.txt").write_text("half")
    store.recover(tmp_path, "c")
    assert content(tmp_path) == OLD
    store.write(tmp_path, "c", NEW)
    assert content(tmp_path) == NEW
    assert leftovers(tmp_path) == []


def test_killed_between_the_renames(tmp_path: Path) -> None:
    store.write(tmp_path, "c", OLD)
    folder = store.lock_folder(tmp_path, "c")
    folder.rename(folder.with_name(".c.old"))
    store.recover(tmp_path, "c")
    assert content(tmp_path) == OLD
    assert leftovers(tmp_path) == []


def test_killed_after_the_second_rename(tmp_path: Path) -> None:
    store.write(tmp_path, "c", NEW)
    (tmp_path / "lockfiles" / ".c.old").mkdir()
    store.recover(tmp_path, "c")
    assert content(tmp_path) == NEW
    store.write(tmp_path, "c", OLD)
    assert content(tmp_path) == OLD
    assert leftovers(tmp_path) == []


def test_what_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    store.write(tmp_path, "c", OLD)
    with pytest.raises(LockError, match="cannot write the lock"):
        store.write(tmp_path, "c", {"a": "a file\n", "a/b": "in a file\n"})
    assert content(tmp_path) == OLD
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".saf").write_text("in the way")
    with pytest.raises(LockError, match="cannot write"), store.guard(tmp_path, "c"):
        pass


def test_only_one_at_a_time(tmp_path: Path) -> None:
    with (
        store.guard(tmp_path, "c"),
        pytest.raises(BusyError, match="another saf-env has been locking cluster c"),
        store.guard(tmp_path, "c", wait=0.05),
    ):
        pass
    with store.guard(tmp_path, "c", wait=0.05), store.guard(tmp_path, "other", wait=0.05):
        pass

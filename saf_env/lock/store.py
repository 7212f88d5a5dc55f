"""Where a lock lies on disk, and how a new one takes the place of the old: whole, or not at all.

The new lock is written to ``.<cluster>.new``, the old one renamed to ``.<cluster>.old``, the new
one renamed into place, the old one removed. Killed at any of these steps, the next command finds
the old lock or the new one, never a mixture.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from saf_env.alone import Notify, alone, nobody
from saf_env.errors import LockError

WAIT = 600.0
"""Seconds to wait for another saf-env that locks the same cluster: a cold one may take minutes."""


def lock_folder(home: Path, cluster: str) -> Path:
    """The folder of the lock of ``cluster`` in the project folder ``home``."""
    return home / "lockfiles" / cluster


def guard(
    home: Path, cluster: str, notify: Notify = nobody, *, wait: float = WAIT
) -> AbstractContextManager[None]:
    """Be the only saf-env that changes the lock of ``cluster``.

    Args:
        home: the project folder.
        cluster: name of the cluster.
        notify: gets a line when there is another one.
        wait: seconds to wait for it to finish.

    Raises:
        BusyError: another one took longer than ``wait``.
        LockError: the project folder cannot be written.
    """
    return alone(
        home / ".saf" / "locks" / f"lock-{cluster}.lock",
        f"locking cluster {cluster}",
        wait=wait,
        unwritable=lambda error: unwritable(home, error),
        notify=notify,
    )


def write(home: Path, cluster: str, files: Mapping[str, str]) -> None:
    """Put ``files`` (text by path) in the place of the lock of ``cluster``, under :func:`guard`.

    Raises:
        LockError: it cannot be written; the old lock is untouched.
    """
    folder, new, old = _folders(home, cluster)
    try:
        shutil.rmtree(new, ignore_errors=True)
        for path, text in files.items():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        _restore(folder, old)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        _restore(folder, old)
        shutil.rmtree(new, ignore_errors=True)
        raise unwritable(home, error) from error
    shutil.rmtree(old, ignore_errors=True)


def recover(home: Path, cluster: str) -> None:
    """Bring the old lock back when a command was killed between the two renames.

    Raises:
        BusyError: see :func:`guard`.
        LockError: see :func:`guard`.
    """
    folder, _, old = _folders(home, cluster)
    if not folder.exists() and old.exists():
        with guard(home, cluster):
            _restore(folder, old)


def _restore(folder: Path, old: Path) -> None:
    if not folder.exists() and old.exists():
        old.rename(folder)


def _folders(home: Path, cluster: str) -> tuple[Path, Path, Path]:
    folder = lock_folder(home, cluster)
    return folder, folder.with_name(f".{cluster}.new"), folder.with_name(f".{cluster}.old")


def unwritable(home: Path, error: Exception) -> LockError:
    """The error to raise when ``error`` came of writing in the project folder ``home``."""
    reason = getattr(error, "strerror", None) or str(error)
    return LockError(
        f"cannot write the lock in {home}: {reason}",
        hint="saf-env needs to write lockfiles/ and .saf/ there, and some free space",
    )

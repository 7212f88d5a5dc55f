"""Folders that appear whole or not at all: made beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from saf_env.alone import alone
from saf_env.errors import ToolchainError, UsageError

Notify = Callable[[str], None]

WAIT = 1800.0
"""Seconds to wait for another saf-env that makes the same folder: downloads take minutes."""


@contextlib.contextmanager
def guard(place: Path, notify: Notify) -> Iterator[None]:
    """Be the only saf-env that makes the folder ``place``, and remove what a killed one left.

    Raises:
        BusyError: another one took longer than :data:`WAIT`.
        ToolchainError: the folder above cannot be written.
    """
    file = place.parent / f".{place.name}.lock"
    with alone(
        file,
        f"making {place.name}",
        wait=WAIT,
        unwritable=lambda error: unwritable(place.parent, error),
        notify=notify,
    ):
        _sweep(place)
        yield
        # Once more: a uv whose saf-env was killed may have gone on writing for a while.
        _sweep(place)


def _sweep(place: Path) -> None:
    for left in place.parent.glob(f".{place.name}.making-*"):
        remove(left)


@contextlib.contextmanager
def fresh(place: Path) -> Iterator[Path]:
    """A new empty folder beside ``place``, removed at the end unless it was published.

    Raises:
        ToolchainError: no space is left, or the folder above cannot be written.
    """
    folder = place.parent / f".{place.name}.making-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise unwritable(place.parent, error) from error
    finally:
        remove(folder)


def publish(folder: Path, place: Path) -> None:
    """Rename the finished ``folder`` to ``place``; what was there is moved aside, then removed."""
    old = folder.with_name(f"{folder.name}-old")
    if os.path.lexists(place):
        place.rename(old)
    folder.rename(place)
    sync(place.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder or file as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def write_json(path: Path, value: object) -> bytes:
    """Write ``value`` to a new file, down to the disk; returns the bytes written."""
    data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return data


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Write ``text`` to ``path`` so that a reader sees the old file or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UsageError(
            f"cannot write {path}: {error.strerror}",
            hint="saf-env needs to write in the project folder, and free space there",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The table in the file ``path``; empty when it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def sync(folder: Path) -> None:
    """Bring a folder's list of names down to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(folder: Path, error: Exception) -> ToolchainError:
    """The error for a folder of ours that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error)
    return ToolchainError(
        f"cannot write in {folder}: {reason}",
        hint="saf-env needs to write in .saf of the project folder, and a few GB free there",
    )

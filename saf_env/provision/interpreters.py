"""The interpreter of a lock on this machine: unpacked from its archive, or found on the system.

In goes an :class:`~saf_env.lock.model.Interpreter`, out comes the path of a binary that is that
build. uv fetches, verifies the archive's digest and unpacks; each archive has a folder of its own,
so that a new build never replaces one that environments use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import CommandTimeoutError, ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.provision import record
from saf_env.provision.failures import failed
from saf_env.provision.folders import (
    Notify,
    fresh,
    guard,
    publish,
    read_json,
    remove,
    unwritable,
    write_json,
)
from saf_env.uv import Uv

PROBE = Path(probe.__file__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def ensure_interpreter(interpreter: Interpreter, uv: Uv, notify: Notify) -> Path:
    """The binary of ``interpreter`` on this machine, made or found if need be.

    Args:
        interpreter: which build, for this machine's platform.
        uv: the pinned uv.
        notify: gets one line for each step that takes time.

    Raises:
        ToolchainError: it cannot be had exactly as locked.
    """
    if not _SHA256.fullmatch(interpreter.sha256):
        raise ToolchainError(
            f"the lock has no sha256 for CPython {interpreter.version} ({interpreter.platform})",
            hint="run `saf-env lock` to make a new lock",
        )
    if interpreter.source == "system":
        return _system(interpreter, uv, notify)
    return _unpacked(interpreter, uv, notify)


def examine(python: Path, uv: Uv) -> dict[str, Any]:
    """What :func:`saf_env.probe.interpreter` says of the interpreter at ``python``.

    Raises:
        ToolchainError: it does not run, or does not come to an end.
    """
    argv = [str(python), "-I", "-S", str(PROBE), "--interpreter"]
    try:
        result = uv.transport.run(argv, env={"PATH": os.defpath}, timeout=60.0)
    except CommandTimeoutError as error:
        raise ToolchainError(error.message, hint=error.hint) from error
    if not result.ok:
        raise ToolchainError(f"{result.host}: {python} does not run:\n{result.tail(5)}")
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


# Found on the system


def _system(interpreter: Interpreter, uv: Uv, notify: Notify) -> Path:
    memory = uv.pythons / f"system-{interpreter.sha256[:16]}.json"
    known = read_json(memory)
    if known and _stat(known["files"]) == known["stat"]:
        return Path(known["path"])
    from saf_env.lock.system import find_system, installed

    notify(f"looking for CPython {interpreter.version} ({interpreter.build}) on this machine")
    path = find_system(uv, interpreter)
    if path is None:
        others = [
            f"{found.path}: {found.interpreter.build}, digest {found.interpreter.sha256[:12]}"
            for found in installed(uv)
        ]
        raise ToolchainError(
            f"this machine has no CPython {interpreter.version} of the locked build: expected "
            f"{interpreter.build}, digest {interpreter.sha256[:12]}; found "
            + ("; ".join(others) or "none"),
            hint="if it was upgraded, run `saf-env lock --python-source system` on this "
            "machine; to be independent of it, `saf-env lock --python-source managed`",
        )
    files = [file for file in (str(path), examine(path, uv)["library"]) if file]
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"path": str(path), "files": files, "stat": _stat(files)})
    except OSError as error:
        raise unwritable(memory.parent, error) from error
    return path


def _stat(files: list[str]) -> list[list[int]] | None:
    """What changes when a file does; None when one is gone."""
    try:
        seen = [os.stat(file) for file in files]
    except OSError:
        return None
    return [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in seen]


# Unpacked from an archive


def folder_name(interpreter: Interpreter) -> str:
    """The folder in ``.saf/python`` of an interpreter that is unpacked, on whichever host."""
    return f"cpython-{interpreter.version}-{interpreter.platform}-{interpreter.sha256[:12]}"


def marker_of(interpreter: Interpreter, binary: str) -> dict[str, Any]:
    """What the marker in that folder says, which is written last of all.

    Args:
        interpreter: of which it is made.
        binary: its path in the folder.
    """
    return {"interpreter": _identity(interpreter), "binary": binary}


def is_made(interpreter: Interpreter, marker: Mapping[str, Any]) -> bool:
    """Whether a folder with this marker was made from the very archive of ``interpreter``."""
    known, wanted = marker.get("interpreter"), _identity(interpreter)
    return isinstance(known, dict) and {key: known.get(key) for key in wanted} == wanted


def _identity(interpreter: Interpreter) -> dict[str, str]:
    """What tells an archive from others: wherever it lies, its digest is the same."""
    return {
        "platform": interpreter.platform,
        "version": interpreter.version,
        "sha256": interpreter.sha256,
    }


def other_inside(interpreter: Interpreter, found: str) -> ToolchainError:
    """The error for an archive with another interpreter, ``found``, than the lock says."""
    return ToolchainError(
        f"the archive {interpreter.url} holds {found}, the lock says CPython {interpreter.version}",
        hint="correct the archive's version in the cluster file, then run `saf-env lock`",
    )


def _unpacked(interpreter: Interpreter, uv: Uv, notify: Notify) -> Path:
    place = uv.pythons / folder_name(interpreter)
    binary = _ready(place, interpreter, uv)
    if binary:
        return binary
    with guard(place, notify):
        binary = _ready(place, interpreter, uv)
        if binary:
            return binary
        notify(f"getting CPython {interpreter.version} ({interpreter.build})")
        return _unpack(interpreter, place, uv)


def _ready(place: Path, interpreter: Interpreter, uv: Uv) -> Path | None:
    """The binary in ``place``, if all there is as it came out of this very archive."""
    marker = read_json(place / probe.MARKER)
    if not is_made(interpreter, marker):
        return None
    binary = place / str(marker["binary"])
    if "interpreter_digest" not in marker:  # made from another host, which compares it by itself
        return binary if os.access(binary, os.X_OK) else None
    try:
        found = examine(binary, uv)
        library = probe.library(found["stdlib"], str(place / probe.MANIFEST))
    except (ToolchainError, OSError, ValueError):
        return None
    differs = any(library[kind][0] for kind in ("changed", "missing", "foreign"))
    return None if differs or found["digest"] != marker["interpreter_digest"] else binary


def _unpack(interpreter: Interpreter, place: Path, uv: Uv) -> Path:
    # uv writes the folder's own path into the interpreter's settings: it is made in its place, and
    # what has no marker is removed and made again.
    remove(place)
    with fresh(place) as temporary:
        key, value = row(interpreter, uv.home)
        table = temporary / "downloads.json"
        write_json(table, {key: value})
        result = uv.run(
            ["python", "install", "--no-bin", key],
            cwd=temporary,
            extra={
                "UV_PYTHON_DOWNLOADS_JSON_URL": str(table),
                "UV_PYTHON_INSTALL_DIR": str(place),
                "UV_PYTHON_DOWNLOADS": "manual",
            },
        )
        if not result.ok:
            remove(place)
            raise failed(f"get CPython {interpreter.version} from {interpreter.url}", result)
        binary = _binary(place, key, interpreter)
        seen = examine(binary, uv)
        if (seen["implementation"], seen["version"]) != ("cpython", interpreter.version):
            remove(place)
            raise other_inside(interpreter, f"{seen['implementation']} {seen['version']}")
        write_json(place / probe.MANIFEST, record.library(Path(seen["stdlib"])))
        marker = marker_of(interpreter, str(binary.relative_to(place)))
        marker["interpreter_digest"] = seen["digest"]
        write_json(temporary / probe.MARKER, marker)
        publish(temporary / probe.MARKER, place / probe.MARKER)
    return binary


def row(interpreter: Interpreter, home: Path) -> tuple[str, dict[str, object]]:
    """Key and value of the interpreter in uv's table, with an address that uv can fetch."""
    from saf_env.lock.downloads import Build

    url = interpreter.url
    if "://" not in url:
        archive = home / url
        if not archive.is_file():
            raise ToolchainError(
                f"the interpreter archive {url} is not in the project folder",
                hint="put the file there, or lock with another source of Python",
            )
        url = archive.absolute().as_uri()
    build = Build(
        platform=interpreter.platform,
        version=interpreter.version,
        build=interpreter.build,
        url=url,
        sha256=interpreter.sha256,
    )
    return build.row()


def _binary(place: Path, key: str, interpreter: Interpreter) -> Path:
    minor = interpreter.version.rpartition(".")[0]
    found = place / key / "bin" / f"python{minor}"
    if not found.is_file():
        raise ToolchainError(
            f"uv has installed {key}, but {found} is missing",
            hint=f"remove {place} and run the command again",
        )
    return found

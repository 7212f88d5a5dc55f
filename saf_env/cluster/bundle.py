"""One archive with all that somebody needs who is asked for help with a cluster, and no secret.

``logs/NODE/FILE`` are the nodes' logs; ``plan.json``, ``facts.json``, ``findings.json`` and
``status.json`` what was planned and what is; the cluster file and its lock are as they are in the
project. ``missing.txt`` says what could not be had, and why.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import tarfile
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import saf_env
from saf_env.cluster.runtimes import LogText
from saf_env.errors import SafEnvError, UsageError

HIDDEN = "[hidden]"

_IN_ADDRESS = re.compile(r"(\w+://)[^/\s\"']*@")
"""Who logs in at an address, and by which password."""

_SHORT = 4
"""Letters: what has no more would hide half the text, and is no secret worth the name."""


def secrets_of(files: Iterable[Path], environ: Mapping[str, str]) -> list[str]:
    """What must not be in the archive: the content of ``files``, and passwords for uv.

    Args:
        files: with a secret each; they may be missing.
        environ: the user's variables.
    """
    found = []
    for file in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append(file.read_text(encoding="utf-8").strip())
    words = ("PASSWORD", "PASSWD", "_PASS", "TOKEN", "SECRET", "KEY", "_PAT", "CREDENTIALS")
    found += [value for name, value in environ.items() if name.upper().endswith(words)]
    return sorted({text for text in found if len(text) > _SHORT}, key=len, reverse=True)


def hidden(text: str, secrets: Sequence[str]) -> str:
    """``text`` without ``secrets``, and without who logs in at addresses in it."""
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe="")):
            text = text.replace(form, HIDDEN)
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)


def versions() -> dict[str, str]:
    """What runs saf-env here."""
    return {
        "saf-env": saf_env.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def refuse(target: Path) -> None:
    """Raise UsageError when no archive can be written to ``target``: better now than at the end."""
    try:
        why = "there is such a file" if target.name and target.exists() else ""
        if not why and not (target.name and target.parent.is_dir()):
            why = "there is no such folder"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise UsageError(f"cannot write {target}: {why}", hint="name another file")


def write(
    target: Path,
    logs: Sequence[LogText],
    values: Mapping[str, Callable[[], Any]],
    files: Mapping[str, Path],
    missing: Sequence[str],
    secrets: Sequence[str],
) -> None:
    """Write the archive: whole, or not at all; for its owner only.

    Args:
        target: a new file, ``….tar.gz``.
        logs: of all nodes.
        values: what becomes ``NAME.json``, and how it is had; what fails is told in the archive.
        files: of this machine, by their names in the archive.
        missing: what could not be had already.
        secrets: what is hidden in all of it.

    Raises:
        UsageError: it cannot be written there, or there is such a file.
    """
    parts = dict(_parts(logs, values, files, list(missing)))
    name = target.name.removesuffix(".gz").removesuffix(".tar")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path, text in parts.items():
                data = hidden(text, secrets).encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{name}/{path}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(data))
        temporary.rename(target)
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", hint="name another file"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _parts(
    logs: Sequence[LogText],
    values: Mapping[str, Callable[[], Any]],
    files: Mapping[str, Path],
    missing: list[str],
) -> Iterator[tuple[str, str]]:
    """Path and content of all that is in the archive."""
    for log in logs:
        yield f"logs/{log.node}/{log.file}", log.text
    for name, make in values.items():
        try:
            yield f"{name}.json", json.dumps(make(), indent=2, sort_keys=True) + "\n"
        except SafEnvError as error:
            missing.append(f"{name}.json: {error.message}")
    for name, path in files.items():
        try:
            yield name, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            missing.append(f"{name}: {error}")
    if missing:
        yield "missing.txt", "\n".join(missing) + "\n"

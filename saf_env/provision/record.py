"""Every file of an environment against the RECORD of the package that brought it.

In goes an environment's folder as uv left it; out come damages, and the manifest of all verified
files that the probe later compares with.
"""

from __future__ import annotations

import base64
import csv
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saf_env import probe

# uv writes these beside a package's own files; RECORD lists them, with or without a digest.
_UV_FILES = {".lock"}
_INSTALLER_FILES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


@dataclass(frozen=True)
class Promise:
    """What a RECORD says of a file: its SHA-256 in hex (empty for none), and whose it is."""

    sha256: str
    package: str


@dataclass(frozen=True)
class Damage:
    """One file that is not as promised: a sentence about it, and its package (empty: unknown)."""

    text: str
    package: str


@dataclass(frozen=True)
class Seen:
    """A file as it was read: its SHA-256 in hex, and what ``lstat`` said of it before that."""

    sha256: str | None
    stat: os.stat_result


@dataclass(frozen=True)
class Examined:
    """What a look at every file of an installed environment found.

    Attributes:
        damages: what is wrong with it; empty when every file is as promised.
        files: those that were read, by path relative to the environment.
    """

    damages: Sequence[Damage]
    files: Mapping[str, Seen]


def site_packages(root: Path) -> Path:
    """The ``site-packages`` folder of the environment in ``root``.

    Raises:
        FileNotFoundError: there is none.
    """
    for found in sorted(root.glob("lib/python3.*/site-packages")):
        return found
    raise FileNotFoundError(root / "lib")


def recorded(root: Path) -> dict[str, Promise]:
    """What all RECORD files promise, by path relative to ``root``.

    Raises:
        ValueError: a RECORD names a file outside of the environment, or another kind of digest.
    """
    found: dict[str, Promise] = {}
    site = site_packages(root)
    for record in sorted(site.glob("*.dist-info/RECORD")):
        package = record.parent.name.partition("-")[0]
        with record.open(encoding="utf-8", newline="") as file:
            for path, digest, _size in csv.reader(file):
                where = os.path.relpath(os.path.normpath(site / path), root)
                if where.startswith(".."):
                    raise ValueError(f"{package} claims a file outside of it: {path}")
                found[where] = Promise(_hexadecimal(digest, path), package)
    return found


def _hexadecimal(digest: str, path: str) -> str:
    """``sha256=<base64>`` as hex digits."""
    kind, _, value = digest.partition("=")
    if not digest:
        return ""
    if kind != "sha256":
        raise ValueError(f"the digest of {path} is a {kind}, only sha256 is known")
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()


def files_of(root: Path, wanted: Callable[[str], bool] = lambda _: True) -> set[str]:
    """Every file and link in ``root``, relative to it; only folders of a ``wanted`` name."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if wanted(name)]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found.update(os.path.relpath(os.path.join(folder, name), root) for name in names + links)
    return found


def examine(root: Path, own: set[str]) -> Examined:
    """Every file of an installed environment against what its package promises.

    Args:
        root: its folder.
        own: files that were there before the first package was installed.
    """
    try:
        promised = recorded(root)
    except ValueError as error:
        return Examined([Damage(str(error), "")], {})
    present = files_of(root)
    kept = {path: promise for path, promise in promised.items() if path in present}
    actual = _read(root, kept)
    texts = {path: "is missing" for path in promised if path not in present}
    for path, promise in kept.items():
        if not promise.sha256 and not _by_installer(path):
            texts[path] = "has no digest in its RECORD"
        elif promise.sha256 not in ("", actual[path].sha256):
            texts[path] = "is not what its package's RECORD says"
    strangers = present - promised.keys() - own - _UV_FILES
    texts |= {p: "is in no package" for p in strangers if not _compiled(p, promised)}
    owners = {_top(path): promise.package for path, promise in promised.items()}
    wrong = [Damage(f"{p} {text}", owners.get(_top(p), "")) for p, text in sorted(texts.items())]
    return Examined(wrong, actual)


def _read(root: Path, paths: Collection[str]) -> dict[str, Seen]:
    """The files ``paths`` of ``root``, by those paths."""
    # Looked at before they are read: what changes after that has another change time.
    stats = {path: os.lstat(root / path) for path in paths}
    full = [str(root / path) for path in stats]
    found = probe.digests(full, [stat.st_size for stat in stats.values()])
    return {path: Seen(found[str(root / path)], stat) for path, stat in stats.items()}


def _top(path: str) -> tuple[str, ...]:
    """What tells whose a file is: its first name below ``site-packages``, or all of its path."""
    parts = path.split("/")
    return tuple(parts[3:4] if parts[2:3] == ["site-packages"] else parts)


def _by_installer(path: str) -> bool:
    folder, name = os.path.split(path)
    return folder.endswith(".dist-info") and name in _INSTALLER_FILES


def _compiled(path: str, promised: Mapping[str, Promise]) -> bool:
    """Whether ``path`` is what uv compiled a package's source to: it overwrites what is there."""
    folder, name = os.path.split(path)
    stem, _, tag = name.removesuffix(".pyc").rpartition(".")
    source = os.path.join(os.path.dirname(folder), stem + ".py")
    ours = tag.startswith("cpython-") and "opt-" not in name and name.endswith(".pyc")
    return os.path.basename(folder) == "__pycache__" and ours and source in promised


def manifest(root: Path, known: Mapping[str, Seen]) -> dict[str, Any]:
    """All that lies in a verified environment, as :func:`saf_env.probe.files` reads it.

    Args:
        root: its folder.
        known: files that were read just now, which need not be read again.
    """
    paths = files_of(root) - {*probe.OWN_FILES}
    folders = [folder for folder, _, _ in os.walk(root)]
    return _manifest(root, folders, paths, known)


def library(stdlib: Path) -> dict[str, Any]:
    """All that nodes import from an interpreter's own library, for ``probe.python_files``.

    Args:
        stdlib: the folder of the standard library.
    """
    paths = {p for p in files_of(stdlib, probe.of_library) if probe.of_library(p)}
    folders = [stdlib, *{parent for p in paths for parent in (stdlib / p).parents}]
    inside = [str(folder) for folder in folders if folder.is_relative_to(stdlib)]
    return _manifest(stdlib, sorted({*inside}), paths, {})


def _manifest(
    root: Path, inside: Sequence[str], names: Collection[str], known: Mapping[str, Seen]
) -> dict[str, Any]:
    paths = sorted(names)
    seen = {**_read(root, [path for path in paths if path not in known]), **known}
    folders: dict[str, tuple[int, int, dict[str, tuple[object, ...]]]] = {}
    for folder in inside:
        stat = os.lstat(folder)
        where = os.path.relpath(folder, root)
        folders["" if where == "." else where] = (stat.st_ctime_ns, stat.st_ino, {})
    for path in paths:
        stat = seen[path].stat
        folder, name = os.path.split(path)
        entry = (stat.st_size, stat.st_ctime_ns, stat.st_ino, seen[path].sha256)
        folders[folder][2][name] = (*entry, 1) if stat.st_mode & 0o100 else entry
    return {"schema": 1, "folders": folders}

"""CPython builds that can be downloaded: from uv's own table, or from a table given as a file.

Out come :class:`Build` values, each with the digest of its archive; one without is no candidate.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.errors import ToolchainError, UsageError
from saf_env.platforms import PLATFORMS
from saf_env.uv import Uv

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

RELEASE_SECONDS = 5.0
"""Longest wait for the checksum file of a release, all of it."""

_RELEASE_BYTES = 4_000_000  # the file of a release with 900 builds has 130 kB
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MIRROR = "UV_PYTHON_INSTALL_MIRROR"


@dataclass(frozen=True)
class Build:
    """One downloadable CPython.

    Attributes:
        platform: name of the platform it is for.
        version: ``X.Y.Z``.
        build: its release, such as ``20260814``; empty when unknown.
        url: address of its archive.
        sha256: digest of the archive; None when the source does not say.
    """

    platform: str
    version: str
    build: str
    url: str
    sha256: str | None

    def row(self) -> tuple[str, dict[str, object]]:
        """Key and value of this build in uv's table of interpreters."""
        os, arch, libc = PLATFORMS[self.platform].uv_key.split("-")
        major, minor, patch = (int(part) for part in self.version.split("."))
        return f"cpython-{self.version}-{os}-{arch}-{libc}", {
            "name": "cpython",
            "arch": {"family": arch, "variant": None},
            "os": os,
            "libc": libc,
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": self.url,
            "sha256": self.sha256,
            "variant": None,
            "build": self.build,
        }


def from_table(path: Path, platforms: Sequence[str]) -> list[Build]:
    """The builds for ``platforms`` in the table at ``path``, which has uv's own format.

    Raises:
        UsageError: the file cannot be read or is no such table.
        ToolchainError: it has builds for these platforms, but none with a digest.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        rows = list(table.items())
        builds = [build for key, row in rows for build in _table_build(key, row, platforms)]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is no table of interpreters",
            hint="--python-downloads takes the format of UV_PYTHON_DOWNLOADS_JSON_URL",
        ) from error
    pinned = [build for build in builds if _SHA256.fullmatch(build.sha256 or "")]
    if builds and not pinned:
        raise ToolchainError(
            f"none of the {len(builds)} builds in {path} has a sha256: they cannot be verified",
            hint="give a table in which every entry has its sha256",
        )
    return pinned


def from_uv(uv: Uv, platforms: Sequence[str]) -> list[Build]:
    """The builds for ``platforms`` that uv knows, without their digests; nothing is downloaded.

    Raises:
        ToolchainError: uv fails.
    """
    plain = replace(uv, environ={k: v for k, v in uv.environ.items() if k != _MIRROR})
    args = ["--all-versions", "--all-platforms", "--all-arches", "--only-downloads"]
    listed = plain.run(["python", "list", *args, "--output-format", "json"], timeout=60.0)
    if not listed.ok:
        raise ToolchainError(f"uv cannot list interpreters: {listed.tail(3)}")
    return [build for row in json.loads(listed.stdout) for build in _listed_build(row, platforms)]


def newest(
    builds: Iterable[Build], wanted: SpecifierSet, platforms: Sequence[str], prefer: str
) -> dict[str, Build]:
    """One build for each of ``platforms``, by platform, all of one version; empty if there is none.

    The version is ``prefer`` if that can be had, else the newest in the range ``wanted``.
    """
    from packaging.version import Version

    by_version: dict[str, dict[str, Build]] = {}
    for build in builds:
        if wanted.contains(build.version):
            by_version.setdefault(build.version, {})[build.platform] = build
    whole = [version for version, found in by_version.items() if set(platforms) <= set(found)]
    if not whole:
        return {}
    return by_version[prefer if prefer in whole else max(whole, key=Version)]


def with_digests(builds: Mapping[str, Build], environ: Mapping[str, str]) -> dict[str, Build]:
    """``builds`` with the digests from the checksum files of their releases.

    Args:
        builds: by platform.
        environ: where the mirror of the releases is taken from.

    Raises:
        ToolchainError: a file cannot be had within :data:`RELEASE_SECONDS`, or lacks a build.
    """
    deadline = time.monotonic() + RELEASE_SECONDS
    addresses = {name: mirrored(build.url, environ) for name, build in builds.items()}
    folders = {address.rsplit("/", 1)[0] for address in addresses.values()}
    sums = {folder: _checksums(f"{folder}/SHA256SUMS", deadline) for folder in sorted(folders)}
    return {
        name: replace(build, sha256=_listed(sums, addresses[name]))
        for name, build in builds.items()
    }


def mirrored(url: str, environ: Mapping[str, str]) -> str:
    """Where to fetch ``url`` from: the user's mirror of the releases, if there is one."""
    mirror, (_, found, rest) = environ.get(_MIRROR), url.partition("/releases/download/")
    return f"{mirror.rstrip('/')}/{rest}" if mirror and found else url


def _listed(sums: Mapping[str, Mapping[str, str]], address: str) -> str:
    from urllib.parse import unquote

    folder, file = address.rsplit("/", 1)
    try:
        return sums[folder][unquote(file)]
    except KeyError:
        raise ToolchainError(f"{folder}/SHA256SUMS does not list {unquote(file)}") from None


def _checksums(address: str, deadline: float) -> dict[str, str]:
    """Digest by file name, from the checksum file at ``address``."""
    import http.client
    import urllib.error
    import urllib.request

    chunks: list[bytes] = []
    try:
        with urllib.request.urlopen(address, timeout=RELEASE_SECONDS) as answer:
            # Read piece by piece: a server that drips would otherwise reset the time-out each time.
            while chunk := answer.read1(65536):
                chunks.append(chunk)
                if time.monotonic() > deadline or sum(map(len, chunks)) > _RELEASE_BYTES:
                    raise TimeoutError(f"took longer than {RELEASE_SECONDS:.0f} s or is too large")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is an answer too, with a socket of its own
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise ToolchainError(f"{address} cannot be reached ({reason})") from error
    text = b"".join(chunks).decode("utf-8", "replace")
    pairs = (line.split() for line in text.splitlines())
    return {
        pair[1].lstrip("*"): pair[0]
        for pair in pairs
        if len(pair) == 2 and _SHA256.fullmatch(pair[0])
    }


def _platform(os: str, arch: str, libc: str, platforms: Sequence[str]) -> str | None:
    key = f"{os}-{arch}-{libc}"
    return next((name for name in platforms if PLATFORMS[name].uv_key == key), None)


def _table_build(key: str, row: Mapping[str, Any], platforms: Sequence[str]) -> Iterator[Build]:
    platform = _platform(row["os"], row["arch"]["family"], row["libc"], platforms)
    plain = not (row.get("prerelease") or row.get("variant") or row["arch"].get("variant"))
    if row["name"] == "cpython" and plain and platform:
        version = f"{row['major']}.{row['minor']}.{row['patch']}"
        if not key.startswith(f"cpython-{version}-"):
            raise ValueError(f"{key} is an entry for {version}")
        yield Build(platform, version, str(row.get("build") or ""), row["url"], row.get("sha256"))


def _listed_build(row: Mapping[str, Any], platforms: Sequence[str]) -> Iterator[Build]:
    os = {"macos": "darwin"}.get(row["os"], row["os"])  # uv's list and its table differ in this
    platform = _platform(os, row["arch"], row["libc"], platforms)
    plain = row["implementation"] == "cpython" and row["variant"] == "default"
    if plain and platform and _VERSION.fullmatch(row["version"]):
        release = re.search(r"/download/([^/]+)/", row["url"])
        yield Build(platform, row["version"], release[1] if release else "", row["url"], None)

"""One exact CPython for the whole cluster, and its build for every platform.

The sources are tried in the order ``managed``, ``archive``, ``system``, unless one is forced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saf_env.errors import ToolchainError, UsageError
from saf_env.lock.downloads import Build, from_table, from_uv, newest, with_digests
from saf_env.lock.model import Interpreter
from saf_env.lock.system import Found, installed, usable
from saf_env.platforms import this_platform
from saf_env.spec.model import PythonSource, PythonSpec
from saf_env.uv import Uv

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_ORDER: tuple[PythonSource, ...] = ("managed", "archive", "system")


@dataclass(frozen=True)
class Choice:
    """The interpreters of a cluster.

    Attributes:
        version: the one exact version.
        interpreters: its build, by platform.
        downloads: the same in uv's format of a table; empty for ``system``.
    """

    version: str
    interpreters: Mapping[str, Interpreter]
    downloads: Mapping[str, object]


@dataclass(frozen=True)
class Wish:
    """What is asked of the interpreters.

    Attributes:
        python: the section of the cluster file.
        platforms: every platform of the cluster.
        home: the project folder, that archives' paths are relative to.
        source: the one source to take; None tries all.
        downloads: a table of builds in uv's format instead of uv's own.
        prefer: a version to keep if it can be had; may be empty.
    """

    python: PythonSpec
    platforms: Sequence[str]
    home: Path
    source: PythonSource | None = None
    downloads: Path | None = None
    prefer: str = ""


def choose(wish: Wish, uv: Uv, notify: Callable[[str], None]) -> Choice:
    """The interpreters that ``wish`` asks for.

    Args:
        wish: what is asked.
        uv: the pinned uv.
        notify: gets one line when a better source cannot be used.

    Raises:
        ToolchainError: no source has what is asked.
        UsageError: a table of builds is given and cannot be read, or makes no sense here.
    """
    finders = {"managed": _managed, "archive": _archive, "system": _system}
    forced = wish.source or ("managed" if wish.downloads else wish.python.source)
    if wish.downloads and forced != "managed":
        raise UsageError(f"a table of builds to download is given, and the source {forced} forced")
    possible = [s for s in _ORDER if s != "archive" or wish.python.archives]
    sources = [forced] if forced else possible
    problems: dict[str, ToolchainError] = {}
    # All are asked at once: the releases may take their time to be out of reach.
    with ThreadPoolExecutor(len(_ORDER)) as pool:
        asked = {source: pool.submit(finders[source], wish, uv) for source in sources}
        for source, answer in asked.items():
            try:
                choice = answer.result()
            except ToolchainError as error:
                problems[source] = error
                continue
            if "managed" in problems:
                notify(
                    f"managed interpreters cannot be had: {problems['managed'].message}; "
                    f"locking CPython {choice.version} from source {source} instead"
                )
            return choice
    raise _failure(wish, problems)


def _managed(wish: Wish, uv: Uv) -> Choice:
    if wish.downloads:
        known = from_table(wish.downloads, wish.platforms)
    else:
        known = from_uv(uv, wish.platforms)
    builds = newest(known, _range(wish.python), wish.platforms, wish.prefer)
    if not builds:
        raise ToolchainError(
            f"no build in the range {wish.python.version} is there for all of "
            f"{', '.join(wish.platforms)}"
        )
    if not wish.downloads:
        builds = with_digests(builds, uv.environ)
    return _downloaded(builds, "managed")


def _archive(wish: Wish, uv: Uv) -> Choice:
    if not wish.python.archives:
        raise ToolchainError("the cluster file has no table [python.archives]")
    builds = {}
    for platform in wish.platforms:
        archive = wish.python.archives.get(platform)
        if archive is None:
            raise ToolchainError(f"python.archives has none for {platform}")
        builds[platform] = Build(
            platform, archive.version, Path(archive.file).name, archive.file, archive.sha256
        )
    versions = {build.version for build in builds.values()}
    if len(versions) > 1 or not _range(wish.python).contains(min(versions)):
        raise ToolchainError(
            f"python.archives holds CPython {', '.join(sorted(versions))}; expected one version, "
            f"in the range {wish.python.version}"
        )
    for build in builds.values():
        _verify_archive(wish.home, build)
    return _downloaded(builds, "archive")


def _verify_archive(home: Path, build: Build) -> None:
    """Check an archive in the project folder; one at an address is checked when it is fetched."""
    if "://" in build.url:
        return
    digest = hashlib.sha256()
    try:
        with (home / build.url).open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise ToolchainError(
            f"cannot read the interpreter archive {build.url}: {error.strerror}"
        ) from error
    if digest.hexdigest() != build.sha256:
        raise ToolchainError(
            f"the interpreter archive {build.url} has sha256 {digest.hexdigest()}, "
            f"python.archives.{build.platform} says {build.sha256}"
        )


def _system(wish: Wish, uv: Uv) -> Choice:
    here = this_platform()
    others = [p for p in wish.platforms if here is None or p != here.name]
    if here is None or others:
        raise ToolchainError(
            f"the interpreters of this machine cannot serve {', '.join(others)}: "
            "it is another platform"
        )
    wanted = _range(wish.python)
    found = [
        f for f in installed(uv, wanted) if wanted.contains(f.interpreter.version) and not f.problem
    ]
    found.sort(key=lambda f: f.interpreter.version != wish.prefer)
    for candidate in found:
        if usable(uv, candidate):
            interpreter = candidate.interpreter
            return Choice(interpreter.version, {here.name: interpreter}, {})
    raise ToolchainError(
        f"this machine has no CPython in the range {wish.python.version}; "
        f"it has {_seen(installed(uv))}"
    )


def _seen(found: Sequence[Found]) -> str:
    if not found:
        return "none at all"
    return ", ".join(
        f"{f.interpreter.version} ({f.path}{f', {f.problem}' if f.problem else ''})" for f in found
    )


def _downloaded(builds: Mapping[str, Build], source: PythonSource) -> Choice:
    rows = dict(build.row() for build in builds.values())
    interpreters = {
        name: Interpreter(name, b.version, source, b.build, b.url, b.sha256 or "")
        for name, b in sorted(builds.items())
    }
    return Choice(next(iter(builds.values())).version, interpreters, dict(sorted(rows.items())))


def _range(python: PythonSpec) -> SpecifierSet:
    from packaging.specifiers import SpecifierSet

    from saf_env.spec.rules import version_range

    return SpecifierSet(version_range(python.version))


def _failure(wish: Wish, problems: Mapping[str, ToolchainError]) -> ToolchainError:
    lines = "".join(f"\n    {source}: {error.message}" for source, error in problems.items())
    return ToolchainError(
        f"no CPython {wish.python.version} can be locked for {', '.join(wish.platforms)}:{lines}",
        hint="widen python.version in the cluster file, install a CPython in that range, or give a "
        "table of builds with --python-downloads FILE",
    )

"""One uv resolution for all environments and platforms of a cluster.

In: the cluster file, the exact Python, versions to keep. Out: the pins of each environment. All are
exported from one universal ``uv lock``, so a package that two environments share has one version.
"""

from __future__ import annotations

import datetime
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env.errors import LockError, UvTimeoutError
from saf_env.lock import toml
from saf_env.lock.inputs import (
    DRIVER,
    DRIVER_REQUIRES,
    cluster_platforms,
    environment_platforms,
    group_platforms,
)
from saf_env.lock.packages import WIRE_PACKAGES, Pin, any_of, parse, simplified
from saf_env.platforms import PLATFORMS
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import CommandResult
from saf_env.uv import Uv

RESOLVE_SECONDS = 300.0
"""Longest a resolution may take; a cold one against a slow index was seen to take 13 s."""

_UNREACHABLE = re.compile(
    r"error sending request|Failed to fetch|Request failed|dns error|client error|server error"
)
# uv's remark on the interpreter that runs it; the lock's Python is another one.
_BESIDE_THE_POINT = re.compile(r"\n*hint: While the active Python version is [^\n]*")
_FEWEST = "fewest"


def resolve(
    spec: ClusterSpec,
    python: str,
    uv: Uv,
    *,
    keep: Mapping[str, str],
    upgrade_packages: Sequence[str],
    notify: Callable[[str], None],
) -> dict[str, list[Pin]]:
    """The pins of every environment of ``spec``, by name of the environment.

    Args:
        spec: the cluster file.
        python: the exact CPython version.
        uv: the pinned uv.
        keep: versions to keep where the requirements allow it, by package.
        upgrade_packages: packages to take in their newest version all the same.
        notify: gets one line when the index could not be asked.

    Raises:
        LockError: the requirements cannot be resolved (with uv's explanation), or the index cannot
            be reached and the cache does not hold enough.
    """
    folder = uv.home / ".saf" / "tmp" / f"lock-{spec.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        (folder / "pyproject.toml").write_text(project(spec, python), encoding="utf-8")
        if keep:
            (folder / "uv.lock").write_text(preferences(spec, python, keep), encoding="utf-8")
        _lock(uv, folder, spec.name, upgrade_packages, notify)
        pins = _export(uv, folder, spec, python)
    except UvTimeoutError as error:
        raise LockError(
            f"uv did not finish within {RESOLVE_SECONDS:.0f} s; lockfiles/ is as it was",
            hint="the package index may be slow or stalled; try again",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    check(pins)
    return pins


def project(spec: ClusterSpec, python: str) -> str:
    """The ``pyproject.toml`` that uv resolves: a dependency group for each group of the cluster."""
    everywhere = cluster_platforms(spec)
    groups = {
        name: _requirements(spec.environment.groups[name], platforms, everywhere)
        for name, platforms in group_platforms(spec).items()
    }
    driver = (*spec.environment.driver, *DRIVER_REQUIRES)
    groups[DRIVER] = _requirements(driver, everywhere, everywhere)
    markers = environment_markers(everywhere, python)
    settings: dict[str, Any] = {
        "package": False,
        "no-build": True,  # a source distribution's build would run its code
        "fork-strategy": _FEWEST,  # one version on all platforms
        "default-groups": [],
        "environments": markers,
        "required-environments": markers,
        "workspace": {"members": []},  # do not look for a workspace in the folders above
    }
    if spec.environment.exclude_newer:
        settings["exclude-newer"] = instant(spec.environment.exclude_newer)
    return toml.dumps(
        {
            "project": {
                "name": "saf-env-cluster",
                "version": "0",
                "requires-python": ">=3.10",  # of the Python that runs uv, not of the lock's
                "dependencies": _requirements(spec.environment.requires, everywhere, everywhere),
            },
            "dependency-groups": groups,
            "tool": {"uv": settings},
        }
    )


def preferences(spec: ClusterSpec, python: str, keep: Mapping[str, str]) -> str:
    """A ``uv.lock`` from which uv takes nothing but the versions in ``keep``, as preferences.

    The options must be those of :func:`project`, or uv ignores the file.
    """
    header = {
        "version": 1,
        "revision": 3,
        "requires-python": ">=3.10",
        "resolution-markers": environment_markers(cluster_platforms(spec), python),
        "options": {"fork-strategy": _FEWEST},
    }
    packages = [
        f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n'
        'source = { registry = "https://example.invalid/simple" }\n'
        for name, version in sorted(keep.items())
    ]
    return toml.dumps(header) + "".join(packages)


def environment_markers(platforms: Iterable[str], python: str) -> list[str]:
    """Markers for uv's setting ``environments``: the one Python on each of ``platforms``."""
    return [
        f"python_full_version == '{python}' and {PLATFORMS[name].marker}"
        for name in sorted(platforms)
    ]


def instant(text: str) -> str:
    """``exclude_newer`` as a point in time; a day ends at midnight UTC, wherever that is asked."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        day = datetime.date.fromisoformat(text) + datetime.timedelta(days=1)
        return f"{day.isoformat()}T00:00:00Z"
    return text


def check(pins: Mapping[str, Sequence[Pin]]) -> None:
    """Refuse what uv would let through: pins without digests, one package in several versions.

    Raises:
        LockError: a pin has no digest, or a package that travels between nodes has two versions.
    """
    versions: dict[str, set[str]] = {}
    for environment, found in pins.items():
        for pin in found:
            versions.setdefault(pin.name, set()).add(pin.version)
            if not pin.hashes:
                raise LockError(
                    f"the index gives no sha256 for {pin.name} {pin.version} of environment "
                    f"{environment}",
                    hint="use a package index that publishes digests",
                )
    for name in sorted(WIRE_PACKAGES & set(versions)):
        if len(versions[name]) > 1:
            raise LockError(
                f"{name} would have different versions on different nodes: "
                f"{', '.join(sorted(versions[name]))}",
                hint=f"require one version of {name} that has wheels for all platforms",
            )


def _requirements(
    texts: Iterable[str], platforms: Sequence[str], everywhere: Sequence[str]
) -> list[str]:
    """``texts``, wanted on ``platforms`` only: a Linux group's package need not exist for a Mac."""
    from packaging.markers import Marker
    from packaging.requirements import InvalidRequirement, Requirement

    result = []
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise LockError(f'"{text}" is not a requirement: {error}') from error
        if requirement.url:
            raise LockError(
                f'"{text}" names an address: it cannot be locked by digest',
                hint="name a version of a package on the index",
            )
        if set(platforms) != set(everywhere):
            own = f"({requirement.marker}) and " if requirement.marker else ""
            requirement.marker = Marker(f"{own}({any_of(platforms)})")
        result.append(str(requirement))
    return sorted(result)


def _lock(
    uv: Uv, folder: Path, cluster: str, upgrade: Sequence[str], notify: Callable[[str], None]
) -> None:
    args = ["lock", "--quiet", "--python", sys.executable]
    for package in upgrade:
        args += ["--upgrade-package", package]
    result = uv.run(args, cwd=folder, timeout=RESOLVE_SECONDS)
    if result.ok:
        return
    if _UNREACHABLE.search(result.stderr):
        if uv.run([*args, "--offline"], cwd=folder, timeout=RESOLVE_SECONDS).ok:
            notify(
                "the package index cannot be reached; resolved from the packages in the cache: "
                "there may be newer ones"
            )
            return
        raise LockError(
            "the package index cannot be reached, and the cache does not hold what the cluster "
            f"needs; lockfiles/ is as it was. uv says:\n{explanation(result)}",
            hint="check the network, the proxy and the index settings (UV_DEFAULT_INDEX), then "
            "run `saf-env lock` again",
        )
    raise LockError(
        f"the requirements of cluster {cluster} cannot be resolved; lockfiles/ is as it was. "
        f"uv says:\n{explanation(result)}",
        hint="change the requirements in the cluster file, then run `saf-env lock` again",
    )


def explanation(result: CommandResult) -> str:
    """What uv said, indented, without what does not concern the user."""
    text = _BESIDE_THE_POINT.sub("", result.stderr.strip() or result.stdout.strip())
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines()[:60])


def _export(uv: Uv, folder: Path, spec: ClusterSpec, python: str) -> dict[str, list[Pin]]:
    from concurrent.futures import ThreadPoolExecutor

    def one(item: tuple[str, tuple[str, ...]]) -> list[Pin]:
        name, platforms = item
        groups = [] if name == "base" else name.split("+")
        args = ["export", "--quiet", "--frozen", "--offline", "--no-default-groups"]
        args += ["--no-emit-project", "--no-header", "--no-annotate", "--python", sys.executable]
        result = uv.run(
            [*args, *(word for group in groups for word in ("--group", group))],
            cwd=folder,
            timeout=RESOLVE_SECONDS,
        )
        if not result.ok:
            raise LockError(f"uv cannot export environment {name}:\n{explanation(result)}")
        return simplified(parse(result.stdout), platforms, python)

    wanted = environment_platforms(spec)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(wanted, pool.map(one, wanted.items()), strict=True))

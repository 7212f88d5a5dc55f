"""The wheels of an environment as files, for a host that reaches no package index.

pip fetches them, for whichever platform, by the digests of the lock; they are kept in the cache.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.packages import Pin, applies, parse, render
from saf_env.plan.model import EnvironmentPlan
from saf_env.platforms import PLATFORMS
from saf_env.provision.failures import failed
from saf_env.provision.folders import Notify, fresh, guard
from saf_env.uv import Uv, cache_root

_SECONDS = 3600.0  # 400 MB at 1 Mbit/s

_LIBC = re.compile(r"(\w+)-manylinux_2_(\d+)")
_OLDEST_LIBC = 5
"""glibc 2.5 is what manylinux1 stands for, the oldest that any wheel names (PEP 513)."""
_OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

_SETTINGS = {
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX_URL": "PIP_INDEX_URL",
    "UV_EXTRA_INDEX_URL": "PIP_EXTRA_INDEX_URL",
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "SSL_CERT_FILE": "PIP_CERT",
}
"""What uv's settings are called for pip; pip's own, where the user has them, count too."""


def fetch_wheels(env: EnvironmentPlan, uv: Uv, notify: Notify) -> dict[str, Path]:
    """The wheel of every package of ``env``, fetched as far as they are not in the cache.

    Args:
        env: which packages, for which platform and Python.
        uv: the pinned uv of this machine, whose settings say where the index is.
        notify: gets a line when something is fetched.

    Returns:
        The files by their SHA-256 in hex.

    Raises:
        ToolchainError: they cannot be had exactly as locked.
    """
    interpreter, pins = env.interpreter, pins_of(env)
    minor = interpreter.version.rpartition(".")[0]
    place = cache_root(uv.home, uv.environ) / "wheels" / f"{interpreter.platform}-{minor}"
    with guard(place, notify):
        found = _found(place, pins)
        missing = [pin for pin in pins if pin not in found]
        if missing:
            notify(f"fetching {len(missing)} wheels for {interpreter.platform}")
            place.mkdir(parents=True, exist_ok=True)
            _download(missing, interpreter.platform, minor, place, uv)
            found = _found(place, pins)
    if lacking := [pin.name for pin in pins if pin not in found]:
        raise ToolchainError(
            f"the index has given no locked wheel of {', '.join(lacking)}",
            hint="run the command again; if it stays so, `saf-env lock` makes a new lock",
        )
    return dict(found.values())


def pins_of(env: EnvironmentPlan) -> list[Pin]:
    """The packages of ``env`` on its platform, without markers."""
    interpreter = env.interpreter
    return [
        Pin(pin.name, pin.version, "", pin.hashes)
        for pin in parse(env.lock.text)
        if applies(pin.marker, interpreter.platform, interpreter.version)
    ]


def _found(place: Path, pins: list[Pin]) -> Mapping[Pin, tuple[str, Path]]:
    """The files in ``place`` that are those of ``pins``, each with its digest."""
    wheels = [str(path) for path in place.glob("*.whl")]
    seen = probe.digests(wheels, [os.stat(wheel).st_size for wheel in wheels])
    files = {f"sha256:{digest}": (digest, Path(wheel)) for wheel, digest in seen.items() if digest}
    return {pin: files[digest] for pin in pins for digest in pin.hashes if digest in files}


def _download(pins: list[Pin], platform: str, minor: str, place: Path, uv: Uv) -> None:
    with fresh(place) as folder:
        wanted = folder / "requirements.txt"
        wanted.write_text(render(pins), encoding="utf-8")
        argv = [sys.executable, "-I", "-m", "pip", "--no-input", "--quiet", "download"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        argv += ["--implementation", "cp", "--python-version", minor]
        for tag in tags(platform):
            argv += ["--platform", tag]
        done = uv.transport.run(
            [*argv, "-r", str(wanted)], env=_variables(uv), timeout=_SECONDS, cwd=str(folder)
        )
        if not done.ok:
            raise failed(f"fetch the wheels for {platform}", done)
        for wheel in folder.glob("*.whl"):
            wheel.replace(place / wheel.name)


def tags(platform: str) -> Iterator[str]:
    """The tags of the wheels that a platform takes, the newest first (PEP 600, PEP 425)."""
    uv_platform = PLATFORMS[platform].uv_platform
    if match := _LIBC.fullmatch(uv_platform):
        for minor in range(int(match[2]), _OLDEST_LIBC - 1, -1):
            yield f"manylinux_2_{minor}_{match[1]}"
            if minor in _OLD_NAMES:
                yield f"{_OLD_NAMES[minor]}_{match[1]}"
        yield f"linux_{match[1]}"
        return
    # pip knows by itself that a Mac takes the wheels of all systems before its own.
    yield "macosx_14_0_arm64"


def _variables(uv: Uv) -> dict[str, str]:
    given = uv.variables()
    passed = {k: v for k, v in given.items() if not k.startswith("UV_")}
    ours = {k: v for k, v in uv.environ.items() if k.startswith("PIP_")}
    renamed = {new: given[old] for old, new in _SETTINGS.items() if given.get(old)}
    cache = cache_root(uv.home, uv.environ) / "pip"
    return {**passed, **ours, **renamed, "PIP_CACHE_DIR": str(cache), "PIP_USER": "0"}

"""Hash-pinned requirements: read, written, and asked what they give on one platform."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from saf_env.platforms import PLATFORMS, Platform

WIRE_PACKAGES = frozenset({"cloudpickle", "mlx", "numpy", "protobuf", "pyarrow", "ray"})
"""Packages whose objects travel between nodes: versions that differ make results silently wrong."""

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)\s*(?:;\s*(.*))?")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One locked package.

    Attributes:
        name: normalised name.
        version: exact version.
        marker: where it is installed; empty means everywhere.
        hashes: digests of all its files, ``sha256:…``, sorted.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def parse(text: str) -> list[Pin]:
    """The pins of a requirements file made by uv or :func:`render`; other lines are passed over."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        wanted, *hashes = line.split("--hash=")
        if match := _PIN.fullmatch(wanted.strip()):
            digests = tuple(sorted(h for found in hashes if _HASH.fullmatch(h := found.strip())))
            pins.append(Pin(normalised(match[1]), match[2], match[3] or "", digests))
    return pins


def render(pins: Iterable[Pin]) -> str:
    """``pins`` as a requirements file, sorted, no blanks at line ends, with a final newline."""
    blocks = []
    for pin in sorted(pins, key=lambda p: (p.name, p.version, p.marker)):
        marker = f" ; {pin.marker}" if pin.marker else ""
        lines = [f"{pin.name}=={pin.version}{marker}", *(f"    --hash={h}" for h in pin.hashes)]
        blocks.append(" \\\n".join(lines))
    return "".join(f"{block}\n" for block in blocks)


def packages_for(text: str, platform_name: str, python_version: str) -> dict[str, str]:
    """Exact version by normalised name of all that ``text`` installs.

    Args:
        text: a requirements file of a lock.
        platform_name: name of the platform it is installed on.
        python_version: exact version of the CPython it is installed for, ``X.Y.Z``.
    """
    return {
        pin.name: pin.version
        for pin in parse(text)
        if applies(pin.marker, platform_name, python_version)
    }


@lru_cache(maxsize=4096)
def applies(marker: str, platform_name: str, python_version: str) -> bool:
    """Whether ``marker`` is true on a platform under a CPython version."""
    if not marker:
        return True
    ours = {p.marker: p for p in PLATFORMS.values()}
    alternatives = [part.strip("()") for part in marker.split(" or ")]
    if all(part in ours for part in alternatives):  # as simplified() writes them: no import needed
        return PLATFORMS[platform_name].marker in alternatives
    from packaging.markers import Marker

    return Marker(marker).evaluate(marker_environment(PLATFORMS[platform_name], python_version))


def marker_environment(platform: Platform, python_version: str) -> dict[str, str]:
    """The values of PEP 508's marker variables for CPython ``python_version`` on ``platform``."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python_version,
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": {"darwin": "Darwin", "linux": "Linux"}[platform.sys_platform],
        "platform_version": "",
        "python_full_version": python_version,
        "python_version": python_version.rsplit(".", 1)[0],
        "sys_platform": platform.sys_platform,
    }


def simplified(pins: Iterable[Pin], platforms: Sequence[str], python_version: str) -> list[Pin]:
    """``pins`` with markers that say only which of ``platforms`` they are for.

    uv's own name the exact Python and each platform on every line, which hides what differs. The
    lock is for these platforms and this Python only, so a pin needed on all of them has no marker,
    and one needed on none is left out.
    """
    result = []
    for pin in pins:
        where = [p for p in platforms if applies(pin.marker, p, python_version)]
        if where:
            marker = "" if len(where) == len(platforms) else any_of(where)
            result.append(Pin(pin.name, pin.version, marker, pin.hashes))
    return result


def any_of(platforms: Sequence[str]) -> str:
    """The marker that is true on ``platforms`` and nowhere else."""
    markers = [PLATFORMS[name].marker for name in sorted(platforms)]
    return markers[0] if len(markers) == 1 else " or ".join(f"({m})" for m in markers)


def normalised(name: str) -> str:
    """A package's name as the index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()

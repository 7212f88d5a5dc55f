"""What another host is, seen before anything of ours is on it: by ``sh`` alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from saf_env.plan.model import HostPlan
from saf_env.platforms import PLATFORMS
from saf_env.transports.base import Transport

NEEDED = 3 * 2**30
"""Bytes for an interpreter, two environments with Ray and MLX, and what they are made from."""

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

_SCRIPT = r"""
echo "system $(uname -s)"
echo "machine $(uname -m)"
echo "glibc $(getconf GNU_LIBC_VERSION 2>/dev/null)"
echo "macos $(sw_vers -productVersion 2>/dev/null)"
echo "login $(pwd)"
umask 077
if why=$(mkdir -p -- "$1/.saf" 2>&1 && : 2>&1 >"$1/.saf/.try" && rm -f -- "$1/.saf/.try" 2>&1); then
    echo "free $(df -P -k -- "$1" | awk 'END { print $4 }')"
else
    echo "refused $(echo "$why" | tail -n 1)"
fi
"""


@dataclass(frozen=True)
class Survey:
    """What a host says of itself.

    Attributes:
        system, machine: as ``uname`` has them.
        glibc: its version; empty where there is none.
        macos: version of macOS; empty elsewhere.
        login: the home of the user who logs in, absolute.
        free: bytes free where saf-env's folder is; None when that cannot be told.
        refused: why that folder cannot be written to; empty when it can.
    """

    system: str
    machine: str
    glibc: str
    macos: str
    login: PurePosixPath
    free: int | None
    refused: str


def survey(host: HostPlan, way: Transport) -> Survey:
    """Look at ``host``; its folder for saf-env is made on the way.

    Raises:
        HostUnreachableError: it cannot be reached.
    """
    seen = way.run(["sh", "-c", _SCRIPT, "sh", str(host.home)], env=_PATH, timeout=30.0)
    lines = (line.partition(" ") for line in seen.stdout.splitlines())
    return read({name: value.strip() for name, _, value in lines})


def read(said: Mapping[str, str]) -> Survey:
    """A survey from the lines that a host printed, by their first word."""
    free = said.get("free", "")
    return Survey(
        system=said.get("system", ""),
        machine=said.get("machine", ""),
        glibc=said.get("glibc", "").rpartition(" ")[2],
        macos=said.get("macos", ""),
        login=PurePosixPath(said.get("login") or "/"),
        free=int(free) * 1024 if free.isdigit() else None,
        refused=said.get("refused", ""),
    )


def refusals(host: HostPlan, seen: Survey, *, roomy: bool, mlx: bool) -> list[str]:
    """Why no node can run on ``host``; empty when one can.

    Args:
        host: its plan.
        seen: what it is.
        roomy: whether there has to be room for environments still to be made.
        mlx: whether an environment of its nodes has MLX, which old systems do not run.
    """
    wanted = PLATFORMS[host.platform]
    own = {"Darwin": "darwin", "Linux": "linux"}.get(seen.system, seen.system)
    if (own, seen.machine) != (wanted.sys_platform, wanted.machine):
        return [
            f"it is {seen.system} on {seen.machine}, planned as {host.platform}: correct the "
            f"platform of host {host.name} in the cluster file, then run `saf-env lock`"
        ]
    found = []
    mac = wanted.os == "macos"
    if not mac and not seen.glibc:
        found.append(f"it has no glibc; the locked packages need {wanted.oldest_system}")
    elif mlx and _version(seen.macos if mac else seen.glibc) < wanted.oldest:
        has = f"macOS {seen.macos}" if mac else f"glibc {seen.glibc}"
        found.append(f"it has {has}; MLX needs {wanted.oldest_system} or newer: update the system")
    if seen.refused:
        found.append(
            f"{_shown(host)} cannot be made there: {seen.refused}; set path of host {host.name} in "
            "the cluster file to a folder that this user may write to"
        )
    if roomy and seen.free is not None and seen.free < NEEDED:
        found.append(
            f"{seen.free / 2**30:.1f} GiB are free for {_shown(host)}, of {NEEDED / 2**30:.0f} GiB "
            "that are needed: free space there"
        )
    return found


def _shown(host: HostPlan) -> str:
    return str(host.home) if host.home.is_absolute() else f"~/{host.home}"


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)

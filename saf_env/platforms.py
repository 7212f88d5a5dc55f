"""The platforms that a node can run on, and what the tools call them.

Nothing here looks at the running machine except :func:`this_platform`.
"""

from __future__ import annotations

import platform as _platform
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """One platform, by the names that uv, wheels and Ray's limits use.

    Attributes:
        name: ours, as written in a cluster file.
        sys_platform: ``sys.platform`` and the marker of the same name.
        machine: ``platform.machine()`` and the marker ``platform_machine``.
        uv_platform: what ``uv --python-platform`` takes.
        uv_key: the middle of a key in uv's table of interpreters, ``<os>-<arch>-<libc>``.
        docker: what Docker calls the machine; containers are Linux on all platforms.
        socket_path_limit: longest path of a UNIX socket in bytes (``sun_path`` less its zero byte).
        loopback: an address of the loopback interface that Ray leaves alone. Ray replaces
            ``127.0.0.1`` by the address of the first interface (``resolve_ip_for_localhost``) on
            Linux; any other address of 127/8 is as good there, while macOS configures only the one.
        oldest: the first macOS, or on Linux the first glibc, that MLX has wheels for.
    """

    name: str
    sys_platform: str
    machine: str
    uv_platform: str
    uv_key: str
    docker: str
    socket_path_limit: int
    loopback: str
    oldest: tuple[int, int]

    @property
    def marker(self) -> str:
        """The environment marker (PEP 508) that is true on this platform only."""
        return f"sys_platform == '{self.sys_platform}' and platform_machine == '{self.machine}'"

    @property
    def os(self) -> str:
        """``macos`` or ``linux``."""
        return self.name.split("-")[0]

    @property
    def oldest_system(self) -> str:
        """``oldest`` for people, as the fact ``platform`` names a system: ``glibc 2.35``."""
        major, minor = self.oldest
        return f"macOS {major}" if self.os == "macos" else f"glibc {major}.{minor}"


PLATFORMS = {
    p.name: p
    for p in (
        Platform(
            name="linux-arm64",
            sys_platform="linux",
            machine="aarch64",
            uv_platform="aarch64-manylinux_2_35",
            uv_key="linux-aarch64-gnu",
            docker="arm64",
            socket_path_limit=107,
            loopback="127.0.0.2",
            oldest=(2, 35),
        ),
        Platform(
            name="linux-x86_64",
            sys_platform="linux",
            machine="x86_64",
            uv_platform="x86_64-manylinux_2_35",
            uv_key="linux-x86_64-gnu",
            docker="amd64",
            socket_path_limit=107,
            loopback="127.0.0.2",
            oldest=(2, 35),
        ),
        Platform(
            name="macos-arm64",
            sys_platform="darwin",
            machine="arm64",
            uv_platform="aarch64-apple-darwin",
            uv_key="darwin-aarch64-none",
            docker="arm64",
            socket_path_limit=103,
            loopback="127.0.0.1",
            oldest=(14, 0),
        ),
    )
}


def this_platform() -> Platform | None:
    """The platform of the running machine, or None when saf-env knows no such platform."""
    machine = _platform.machine()
    for known in PLATFORMS.values():
        if (known.sys_platform, known.machine) == (sys.platform, machine):
            return known
    return None

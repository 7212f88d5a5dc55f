"""Digests of files on another host, of which nothing is asked but ``sh``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from saf_env.transports.base import Transport

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

DIGESTS = (
    'for f; do if [ -f "$f" ]; then sha256sum <"$f" 2>/dev/null || shasum -a 256 <"$f"; '
    "else echo; fi; done"
)
"""A line for each of its words; empty for a path that is no file. See :func:`parse`."""

_PRIVATE = 'chmod 600 -- "$@" 2>/dev/null; '


def digests(
    way: Transport, paths: Sequence[PurePath], *, private: bool = False, timeout: float = 60.0
) -> list[str]:
    """SHA-256 in hex of files on a host, empty for one that is not there or cannot be read.

    Args:
        way: to it.
        paths: of the files; relative ones begin at the home of who logs in.
        private: make them their owner's only, before.
        timeout: seconds.

    Raises:
        HostUnreachableError: it cannot be reached.
    """
    script = (_PRIVATE if private else "") + DIGESTS
    argv = ["sh", "-c", script, "sh", *map(str, paths)]
    return parse(way.run(argv, env=_PATH, timeout=timeout).stdout, len(paths))[0]


def parse(text: str, count: int) -> tuple[list[str], list[str]]:
    """The ``count`` digests that :data:`DIGESTS` has printed, and the lines that come after."""
    lines = text.split("\n")
    found = [line.partition(" ")[0] for line in [*lines[:count], *[""] * count][:count]]
    return found, lines[count:]

"""The cluster's token: what lets a node, a driver or a browser in."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import BringUpError, HostUnreachableError, UsageError
from saf_env.plan.build import token_path
from saf_env.plan.model import ClusterPlan
from saf_env.provision.folders import write_atomically
from saf_env.transports.base import Transport

_TOKEN = re.compile(r"[!-~]{32,4096}")  # as saf_env.probe.token judges it

# Everybody on that host knows where the folder is, so it has to be the user's who logs in.
_GIVE = """
if [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -O "$1/token" ]; then cat -- "$1/token"
else echo "$1 is not there, or not this user's" >&2; exit 1; fi
"""

_BY_HAND = "run `saf-env down`, remove it, then run `saf-env check --fix`"


def ensure_token(home: Path, cluster: str) -> bool:
    """Make the token of ``cluster`` unless there is a file already; True when it was made.

    64 hex digits (256 bits) of the system's randomness, readable by this user only. A file that is
    there is left alone: judging it is the check ``token``'s work.

    Raises:
        UsageError: it cannot be written.
    """
    path = token_path(home, cluster)
    if os.path.exists(path):
        return False
    _own_folder(path)
    write_atomically(path, secrets.token_hex(32))
    return True


def _own_folder(path: Path) -> None:
    """Make the folder of the token ``path``, for this user only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"cannot make the token {path}: {error.strerror}",
            hint=f"{path.parent} must be a folder of yours, and writable",
        ) from error


def fetch_token(path: Path, cluster: ClusterPlan, way: Transport) -> None:
    """Get the token of a cluster that runs from its head's host, over the user's own ssh.

    Args:
        path: where it is to be.
        cluster: whose.
        way: to the head's host.

    Raises:
        BringUpError: it cannot be had.
    """
    source, host = str(cluster.folder / "token"), way.host
    argv = ["sh", "-c", _GIVE, "sh", str(cluster.folder)]
    by_hand = (
        f"run `saf-env up` on {cluster.controller}, or bring {source} of {host} here as {path}, "
        "with mode 0600 in a folder that only you can open"
    )
    try:
        seen = way.run(argv, env={"PATH": "/usr/bin:/bin"}, timeout=30.0)
    except HostUnreachableError as error:
        text = f"this host has no token of cluster {cluster.name}, and {error.message}"
        mend = f"{error.hint}; or " if error.hint else ""
        raise BringUpError(text, hint=mend + by_hand) from error
    if not seen.ok or not _TOKEN.fullmatch(seen.stdout):
        said = seen.tail(1) if not seen.ok else "what lies there is none"
        raise BringUpError(
            f"this host has no token of cluster {cluster.name}, and {host} gives none: {said}",
            hint=by_hand,
        )
    _own_folder(path)
    write_atomically(path, seen.stdout)


def mend_token(
    home: Path, cluster: str, *, running: bool, fetch: Callable[[], None] | None = None
) -> list[str]:
    """Repair the token file of ``cluster`` as far as that harms nobody.

    Args:
        home: the project folder.
        cluster: its name.
        running: whether a node of it runs, which knows the token as it is.
        fetch: gets the token from where it is made, on a host that has to have the same.

    Returns:
        What was done, or why nothing was and what the user has to do; empty when nothing is wrong.

    Raises:
        UsageError: a new one cannot be written.
    """
    path = token_path(home, cluster)
    try:
        done = _closed(path, probe.token({"token": str(path)}))
        problems = probe.token({"token": str(path)}).get("problems", [])
    except _LeftAlone as reason:
        return [f"left the token {path} as it is: {reason}; {_BY_HAND}"]
    except OSError as error:
        return [f"cannot mend the token {path}: {error.strerror}; {_BY_HAND}"]
    if fetch is not None:
        if problems or not os.path.lexists(path):
            try:
                fetch()
                done.append("fetched the token")
            except BringUpError as error:
                done.append(f"{error.message}; {error.hint}")
        return done
    if problems and running:
        told = f"left the token {path} as it is, since nodes run: {'; '.join(problems)}; {_BY_HAND}"
        return [*done, told]
    if problems:
        write_atomically(path, secrets.token_hex(32))
        done.append(f"made another token, the old one was of no use: {'; '.join(problems)}")
    return done


class _LeftAlone(Exception):
    """Why the token file is not ours to change."""


def _closed(path: Path, seen: dict[str, Any]) -> list[str]:
    """Let nobody but this user read the file, which must be a plain one of ours."""
    if not seen["present"]:
        return []
    if seen["link"] or not seen["file"]:
        raise _LeftAlone("it is no plain file")
    if seen["owner"] != seen["uid"]:
        raise _LeftAlone(f"it belongs to user {seen['owner']}")
    if seen["mode"] == 0o600:
        return []
    path.chmod(0o600)
    return [f"made the token readable by you only: its mode was {seen['mode']:04o}"]

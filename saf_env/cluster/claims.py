"""Whose the folder is that saf-env has on another host, as a note in it says.

The folder, ``~/.saf-env/CLUSTER`` by default, has its name from the cluster only. So two people, or
two projects of one, whose clusters happen to have one name would share it, and with it the token;
and one could remove what the other's nodes run in. The note holds one line: the id of the cluster,
and the project that brought it up. It is written before anything else is, and taken back once the
whole cluster is stopped.

A note with our id is ours whoever wrote it: it is the same cluster, from another machine. One with
our project is ours too: what it has recorded tells whether the cluster still runs under another id.
"""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

from saf_env.errors import BringUpError
from saf_env.plan.model import HostPlan

NOTE = ".saf/owner"
"""Where the note lies in the folder."""

OURS = 'ours() { case $note in ""|"$id "*|*" $origin") return 0 ;; esac; return 1; }'
"""For ``sh``: whether ``$note`` is none, of the cluster ``$id``, or of the project ``$origin``."""


# Arguments of what follows: the folder, the temp folder, the cluster id, and the project.
_NOTE = f'id=$3 origin=$4; note=$(cat "$1/{NOTE}" 2>/dev/null); {OURS}; '
LEAVE = _NOTE + f'if ours; then rm -f -- "$1/{NOTE}"; fi'
# Folders that somebody else has put something into stay.
PURGE = _NOTE + (
    'if ! ours; then rm -rf -- "$2"; echo "$note"; exit 3; fi; '
    'rm -rf -- "$1/.saf" "$2" && { rmdir -- "$1" .saf-env 2>/dev/null; true; }'
)


def who() -> str:
    """``user@machine`` of this process, without blanks."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a number without an account
        user = str(os.getuid())
    return "".join(f"{user}@{socket.gethostname()}".split())


def origin(project: Path) -> str:
    """The project in a folder of this machine, in one line."""
    return " ".join(f"{who()}:{project}".split())


def belongs_to_another(host: HostPlan, note: str) -> BringUpError:
    """The error for a host whose folder is another cluster's, as its ``note`` says."""
    folder = host.home if host.home.is_absolute() else Path("~") / host.home
    project = note.partition(" ")[2] or "an unknown project"
    return BringUpError(
        f"{host.name}: {folder} belongs to another cluster of the same name, that of {project}",
        hint="run `saf-env down` there; or, in the cluster file, give this cluster another name, "
        f"or {host.name} another path. If that project is no more, remove {folder / NOTE} on "
        f"{host.name}",
    )


def claim_here(host: HostPlan, cluster: str, project: str) -> None:
    """Claim the folder of this machine, whose cluster is run from another one.

    Args:
        host: this machine.
        cluster: the cluster id.
        project: who we are, see :func:`origin`.

    Raises:
        BringUpError: it is another cluster's.
    """
    path = host.home / NOTE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{cluster} {project}\n")
    except FileExistsError:
        note = path.read_text(encoding="utf-8", errors="replace").strip()
        if note and note.partition(" ")[0] != cluster:
            raise belongs_to_another(host, note) from None
    except OSError:
        pass  # what needs the folder tells why it cannot be had

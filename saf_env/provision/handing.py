"""What a host hands to its containers in files that only they can read."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from saf_env.errors import BringUpError
from saf_env.plan.compose import Handed
from saf_env.provision.folders import write_atomically

IMAGE_USER = 10001
"""The user that images have for whoever must not be root."""


def check_key(key: Path) -> None:
    """Refuse a tailnet's auth key that is missing, empty, or can be read by others.

    Raises:
        BringUpError: it is.
    """
    hint = "make a key in the tailnet's admin console, write it to that file and `chmod 600` it"
    try:
        seen = key.stat()
    except OSError as error:
        text = f"cannot read the tailnet's auth key {key}: {error.strerror}"
        raise BringUpError(text, hint=hint) from error
    if not stat.S_ISREG(seen.st_mode) or not seen.st_size:
        raise BringUpError(f"the tailnet's auth key {key} is no file with a key", hint=hint)
    if seen.st_mode & 0o077:
        raise BringUpError(
            f"others can read the tailnet's auth key {key} (mode {seen.st_mode & 0o777:04o})",
            hint=f"run `chmod 600 {shlex.quote(str(key))}`; a key that others saw is to be revoked",
        )


def hand_over(token: Path, place: Path) -> Handed:
    """The token in a file that the containers' user can read, and nobody else.

    They run as the token's owner. A root's containers do not run as root: they get a copy of their
    own, which belongs to a user that the host does not have.
    """
    owner = token.stat()
    if owner.st_uid != 0:
        return Handed(f"{owner.st_uid}:{owner.st_gid}", token)
    copy = place / "token.container"
    write_atomically(copy, token.read_text(encoding="utf-8"), mode=0o400)
    os.chown(copy, IMAGE_USER, IMAGE_USER)
    return Handed(f"{IMAGE_USER}:{IMAGE_USER}", copy)

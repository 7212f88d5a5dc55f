"""What a host hands to its containers in files that only they can read."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from saf_env.errors import BringUpError
from saf_env.plan.compose import Handed
from saf_env.provision.folders import write_atomically
from saf_env.transports.base import FileTransport

IMAGE_USER = 10001
"""The user that images have for whoever must not be root."""

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

# What hand_over does, in the folder $1, with $2 as the containers' user.
_HAND_OVER = """
set -eu
cd -- "$1"
umask 077
user=$(id -u):$(id -g) name=token
[ -f token ] || { echo "there is no token in $PWD" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then
    user=$2:$2 name=token.container
    cp token token.new
    chmod 400 token.new
    chown "$user" token.new
    mv -f token.new token.container
fi
printf '%s\\n' "$user" "$PWD" "$name"
"""


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


def hand_over(token: Path, auth_key: Path | None) -> Handed:
    """The token in a file that the containers' user can read, and nobody else.

    They run as the token's owner. A root's containers do not run as root: they get a copy of their
    own, beside it, which belongs to a user that the host does not have.

    Args:
        token: file with the cluster's token.
        auth_key: file with the tailnet's key; None where no container needs it.

    Raises:
        BringUpError: others can read the key, or there is none.
    """
    if auth_key:
        check_key(auth_key)
    owner = token.stat()
    if owner.st_uid != 0:
        return Handed(f"{owner.st_uid}:{owner.st_gid}", token, auth_key)
    copy = token.with_name("token.container")
    write_atomically(copy, token.read_text(encoding="utf-8"), mode=0o400)
    os.chown(copy, IMAGE_USER, IMAGE_USER)
    return Handed(f"{IMAGE_USER}:{IMAGE_USER}", copy, auth_key)


def hand_over_there(way: FileTransport, token: Path, auth_key: Path | None) -> Handed:
    """As :func:`hand_over`, on another host.

    Args:
        way: to the host.
        token: file there with the cluster's token; from the home of who logs in.
        auth_key: file of this machine, as above.

    Raises:
        BringUpError: as above; or the token is not there.
        HostUnreachableError: the host cannot be reached.
    """
    key = token.with_name("tailscale-key")
    if auth_key:
        check_key(auth_key)
        way.put(auth_key, str(key), mode=0o600, timeout=60.0)
    words = [str(token.parent), str(IMAGE_USER)]
    done = way.run(["sh", "-c", _HAND_OVER, "sh", *words], env=_PATH, timeout=30.0)
    if not done.ok:
        raise BringUpError(
            f"{way.host}: the token cannot be handed to containers: {done.tail(2)}",
            hint="`saf-env check --fix` gives the host the token",
        )
    user, folder, name = done.stdout.splitlines()
    return Handed(user, Path(folder) / name, Path(folder) / key.name if auth_key else None)

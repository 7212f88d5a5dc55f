"""The cluster's token: what lets a node, a driver or a browser in."""

from __future__ import annotations

import secrets
from pathlib import Path

from saf_env.cluster.state import write_atomically
from saf_env.plan.build import token_path


def ensure_token(home: Path, cluster: str) -> bool:
    """Make the token of ``cluster`` unless there is a file already; True when it was made.

    64 hex digits (256 bits) of the system's randomness, readable by this user only. A file that is
    there is left alone: judging it is the check ``token``'s work.
    """
    path = token_path(home, cluster)
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    write_atomically(path, secrets.token_hex(32))
    return True

"""Proof that an environment of a lock can be installed on a platform, made on any other machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from saf_env.errors import LockError
from saf_env.lock.model import Lock
from saf_env.platforms import PLATFORMS
from saf_env.uv import Uv

MACOS_FLOOR = "14.0"
"""The oldest macOS that MLX has wheels for; uv assumes 13 and finds none without being told."""


def proof(lock: Lock, uv: Uv, environment: str, platform: str) -> int:
    """Let uv select a wheel with a locked digest for every package, installing nothing.

    Args:
        lock: a lock.
        uv: the pinned uv.
        environment: name of one of its environments.
        platform: name of the platform to prove it for.

    Returns:
        how many packages would be installed.

    Raises:
        LockError: a wheel is missing or has another digest, with uv's explanation.
    """
    base = uv.home / ".saf" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="proof-", dir=base) as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(lock.environments[environment].text, encoding="utf-8")
        args = ["pip", "install", "--dry-run", "--require-hashes", "--only-binary", ":all:"]
        args += ["--python-platform", PLATFORMS[platform].uv_platform]
        args += ["--python-version", lock.python, "--python", sys.executable]
        args += ["--target", str(Path(folder) / "target"), "-r", str(requirements)]
        macos = {"MACOSX_DEPLOYMENT_TARGET": MACOS_FLOOR}
        result = uv.run(args, cwd=Path(folder), timeout=300.0, extra=macos)
    if not result.ok:
        raise LockError(
            f"environment {environment} cannot be installed on {platform}:\n{result.tail(30)}",
            hint="run `saf-env lock`",
        )
    return sum(line.startswith(" + ") for line in result.stderr.splitlines())

"""The locked uv for any platform, taken from its wheel by digest."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

from saf_env.errors import ToolchainError
from saf_env.platforms import PLATFORMS
from saf_env.provision.failures import failed
from saf_env.provision.folders import fresh
from saf_env.uv import Uv


def fetch_uv(version: str, platform: str, sha256: str, target: Path, uv: Uv) -> None:
    """Write the binary of uv ``version`` for ``platform`` to the new file ``target``.

    Args:
        version: exact version.
        platform: name of the platform that it runs on.
        sha256: digest of its wheel.
        target: where to; its folder is there.
        uv: the pinned uv of this machine, which fetches it.

    Raises:
        ToolchainError: it cannot be had, or is not what its wheel promises.
    """
    with fresh(target) as folder:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"uv=={version} --hash=sha256:{sha256}\n", encoding="ascii")
        argv = ["pip", "install", "--target", str(folder / "uv"), "--python", sys.executable]
        argv += ["--python-platform", PLATFORMS[platform].uv_platform, "--require-hashes"]
        argv += ["--only-binary", ":all:", "--no-deps", "--link-mode", "copy", "-r", str(wanted)]
        done = uv.run([*argv, "--offline"], cwd=folder)
        if not done.ok:
            done = uv.run(argv, cwd=folder)
        if not done.ok:
            raise failed(f"get uv {version} for {platform}", done)
        binary = folder / "uv" / "bin" / "uv"
        digest = base64.urlsafe_b64encode(hashlib.sha256(binary.read_bytes()).digest())
        (promised,) = (folder / "uv").glob("uv-*.dist-info/RECORD")
        if f"sha256={digest.decode().rstrip('=')}," not in promised.read_text(encoding="utf-8"):
            raise ToolchainError(
                f"uv {version} for {platform} in uv's cache is not what its wheel promises",
                hint="remove it from the cache: `uv cache clean uv`, then run the command again",
            )
        binary.replace(target)

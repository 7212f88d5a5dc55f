"""Resolves saf-env's own pins anew, shows what changes, and writes it when told to.

    make pins                       newest uv, newest packages
    make pins ARGS="--uv 0.13.9"    that uv
    make pins ARGS="--yes"          without asking

The pins: ``saf_env/uv-pin.txt``, ``lockfiles/saf-env.txt`` and ``lockfiles/saf-env-dev.txt``, the
last two resolved from ``pyproject.toml``. They hold no address, so that they serve every index.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PIN = Path("saf_env/uv-pin.txt")
TOOL = Path("lockfiles/saf-env.txt")
DEV = Path("lockfiles/saf-env-dev.txt")

# Marker of a platform, and the tag of the wheel for it: the one that runs on most systems.
WHEELS = (
    (("linux", "aarch64"), "manylinux_2_17_aarch64"),
    (("linux", "x86_64"), "manylinux_2_17_x86_64"),
    (("darwin", "arm64"), "macosx_11_0_arm64"),
)
PIN_HEADER = "# The uv that saf-env works with, by the digest of its wheels. Made by: make pins\n"
COMPILE = (
    "pip compile --universal --python-version 3.10 --generate-hashes --only-binary :all: "
    "--no-emit-index-url --no-header"
)


def main() -> int:
    """Resolve, show, ask, write."""
    parser = argparse.ArgumentParser(description="Resolve saf-env's own pins anew.")
    parser.add_argument("--uv", default="", help="version of uv (default: the newest)")
    parser.add_argument("--yes", action="store_true", help="write without asking")
    args = parser.parse_args()
    new = {PIN: uv_pin(args.uv), TOOL: requirements(), DEV: ""}
    new[DEV] = requirements("--group", "dev", constraints=new[TOOL])
    if not show(new):
        print("Nothing changes.")
        return 0
    if not args.yes and input("Write these files? [y/N] ").strip().lower() != "y":
        return 1
    for path, text in new.items():
        temp = path.with_suffix(".new")
        temp.write_text(text, encoding="utf-8")
        temp.replace(path)
    return 0


def uv(*args: str) -> str:
    """Run the environment's own uv with the project's cache and return what it prints."""
    cache = Path(os.environ.get("SAF_ENV_CACHE") or ".saf/cache").absolute() / "uv"
    binary = Path(sys.prefix, "bin", "uv")
    return subprocess.run(
        [str(binary), "--quiet", *args],
        env={**os.environ, "UV_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=600,
        check=True,
    ).stdout


def uv_pin(version: str) -> str:
    """The text of ``uv-pin.txt`` for uv ``version``, or for the newest."""
    with tempfile.TemporaryDirectory() as temp:
        asked = Path(temp, "uv.in")
        asked.write_text(f"uv=={version}\n" if version else "uv\n", encoding="utf-8")
        # This format alone says which digest belongs to which file.
        out = Path(temp, "pylock.toml")
        uv("pip", "compile", str(asked), "--universal", "--format", "pylock.toml", "-o", str(out))
        text = out.read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    files = re.findall(r'/([^/"]+\.whl)".*?sha256 = "([0-9a-f]{64})"', text)
    if not found:
        raise SystemExit("error: uv's answer names no version")
    lines = [PIN_HEADER]
    for (system, machine), tag in WHEELS:
        (digest,) = (sha256 for name, sha256 in files if tag in name)
        marker = f"sys_platform == '{system}' and platform_machine == '{machine}'"
        lines.append(f"uv=={found[1]} ; {marker} --hash=sha256:{digest}\n")
    return "".join(lines)


def requirements(*options: str, constraints: str = "") -> str:
    """The hashed requirements of ``pyproject.toml`` for all platforms and Pythons.

    Args:
        options: further options of ``uv pip compile``.
        constraints: requirements whose versions are kept.
    """
    command = " ".join(["uv", COMPILE, *options, "pyproject.toml"])
    with tempfile.TemporaryDirectory() as temp:
        limit = Path(temp, "constraints.txt")
        limit.write_text(constraints, encoding="utf-8")
        args = [*COMPILE.split(), *options, "pyproject.toml", "-c", str(limit)]
        text = uv(*args, "--no-annotate")
    return f"# saf-env's own packages. Made by: make pins\n# ({command})\n{text}"


def show(new: dict[Path, str]) -> bool:
    """Print the difference to the files as they are; return whether there is any."""
    changed = False
    for path, text in new.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        before, after = old.splitlines(keepends=True), text.splitlines(keepends=True)
        diff = list(difflib.unified_diff(before, after, f"{path} (now)", f"{path} (new)"))
        sys.stdout.writelines(diff)
        changed = changed or bool(diff)
    return changed


if __name__ == "__main__":
    sys.exit(main())

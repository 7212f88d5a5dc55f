"""Runs in the build of the image: installs the locked packages, believes only what was verified.

In ``/tmp/build`` are ``requirements.txt``, ``plan.json`` (what
:func:`saf_env.provision.context.render` wrote) and the two modules of saf-env that do the
verifying; uv is ``/tmp/uv``. Out comes ``/opt/saf-env/env``, with the marker and manifest of an
environment on a host, and the same bytes at every build.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BUILD = Path("/tmp/build")
sys.path.insert(0, str(BUILD))

from saf_env import probe  # noqa: E402
from saf_env.provision import record  # noqa: E402

ROOT = Path("/opt/saf-env/env")
PYTHON = Path("/opt/saf-env/python/current").resolve()
EPOCH = 315532800
"""Seconds: 1980, the first year that a zip file can hold. The time of every file."""

# What uv adds for shells and for version control.
_UNUSED = (
    "bin/activate*",
    "bin/deactivate*",
    "bin/pydoc.bat",
    "CACHEDIR.TAG",
    ".gitignore",
    ".lock",
)


def main() -> int:
    """Make the environment; returns the exit code."""
    os.umask(0o022)
    plan = json.loads((BUILD / "plan.json").read_bytes())
    variables = settings()
    check_interpreter(plan)
    say(f"installing {len(plan['marker']['packages'])} packages")
    seen = install(variables)
    if wrong := seen.damages:
        say(f"a file from the build cache is damaged, fetching anew: {wrong[0].text}")
        names = {damage.package for damage in wrong}
        clean = sorted(plan["marker"]["packages"] if "" in names else names)
        uv(["cache", "clean", *clean], variables)
        seen = install(variables)
    if wrong := seen.damages:
        fail(
            f"{len(wrong)} installed files are not what their packages promise: "
            + "; ".join(damage.text for damage in wrong[:10])
        )
    found = dict(probe.distributions(str(record.site_packages(ROOT))))
    if found != plan["marker"]["packages"]:
        different = sorted(set(found.items()) ^ set(plan["marker"]["packages"].items()))
        fail(f"uv has not installed what the lock says: {different[:10]}")
    say("verified every file")
    finish(plan["marker"], seen.files)
    return 0


def settings() -> dict[str, str]:
    """The variables for uv, from the secret that the controller handed in."""
    given = {}
    secret = Path("/tmp/reach/settings")
    if secret.exists():
        for line in shlex.split(secret.read_text(encoding="utf-8"), comments=False):
            name, found, value = line.partition("=")
            if found:
                given[name] = value
    return {
        **given,
        "PATH": os.defpath,
        "HOME": "/tmp",
        "XDG_CONFIG_HOME": "/tmp/reach/user",
        "XDG_CONFIG_DIRS": "/tmp/reach/system",
        "UV_CACHE_DIR": "/tmp/cache",
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
        # Bytecode by the hash of its source: by default it holds the time of the file. The seed is
        # for the order of the names in a set that is written down as a constant.
        "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
        "PYTHONHASHSEED": "0",
    }


def check_interpreter(plan: dict[str, Any]) -> None:
    """Refuse an interpreter that is not the locked one."""
    seen, wanted = probe.interpreter(), plan["marker"]["interpreter"]
    if (seen["implementation"], seen["version"]) != ("cpython", wanted["version"]):
        fail(
            f"the archive of the interpreter holds {seen['implementation']} {seen['version']}, "
            f"the lock says CPython {wanted['version']}"
        )
    if wanted["source"] == "system" and seen["digest"] != wanted["sha256"]:
        fail(f"the packed interpreter has the digest {seen['digest']}, the lock {wanted['sha256']}")


def install(variables: dict[str, str]) -> record.Examined:
    """Let uv install everything in a new environment and look at every file."""
    shutil.rmtree(ROOT, ignore_errors=True)
    done = uv(["venv", "--no-project", "--python", str(PYTHON), str(ROOT)], variables)
    if done:
        fail("uv could not make the environment")
    own = record.files_of(ROOT)
    argv = ["pip", "sync", "--python", str(ROOT / "bin" / "python"), "--require-hashes"]
    argv += ["--only-binary", ":all:", "--compile-bytecode", str(BUILD / "requirements.txt")]
    # The digests decide what is installed: what the cache has need not be asked for.
    if uv([*argv, "--offline", "--quiet"], variables, quiet=True) and uv(argv, variables):
        fail("uv could not install the locked packages")
    return record.examine(ROOT, own)


def uv(arguments: list[str], variables: dict[str, str], *, quiet: bool = False) -> int:
    """Run uv; returns its exit code."""
    stream = subprocess.DEVNULL if quiet else None
    argv = ["/tmp/uv", *arguments]
    done = subprocess.run(
        argv, env=variables, cwd="/tmp", stdout=stream, stderr=stream, check=False
    )
    return done.returncode


def finish(marker: dict[str, Any], files: Mapping[str, record.Seen]) -> None:
    """Remove what is not needed, and write down what was verified."""
    for pattern in _UNUSED:
        for path in ROOT.glob(pattern):
            path.unlink()
    library = record.library(Path(os.__file__).parent)
    verified = {
        "interpreter_digest": probe.interpreter()["digest"],
        "python_manifest_sha256": keep(ROOT / probe.PYTHON_MANIFEST, library["folders"]),
        "manifest_sha256": keep(ROOT / probe.MANIFEST, record.manifest(ROOT, files)["folders"]),
    }
    dump(ROOT / probe.MARKER, {**marker, **verified})
    for folder, folders, names in os.walk(ROOT):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (".", *names, *links):
            os.utime(os.path.join(folder, name), (EPOCH, EPOCH), follow_symlinks=False)


def keep(path: Path, folders: dict[str, Any]) -> str:
    """Write a manifest, and return its SHA-256.

    Inodes and change times of the build say nothing in a container: every file is hashed there.
    """
    for folder, (_, _, names) in folders.items():
        known = {name: (size, 0, 0, *rest) for name, (size, _, _, *rest) in names.items()}
        folders[folder] = (0, 0, dict(sorted(known.items())))
    data = dump(path, {"schema": 1, "folders": dict(sorted(folders.items()))})
    return hashlib.sha256(data).hexdigest()


def dump(path: Path, value: object) -> bytes:
    """Write JSON, always the same for the same value."""
    data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    path.write_bytes(data)
    return data


def say(text: str) -> None:
    """A line that saf-env shows to the user."""
    sys.stdout.write(f"saf-env: {text}\n")
    sys.stdout.flush()


def fail(text: str) -> None:
    """End the build."""
    say(f"error: {text}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())

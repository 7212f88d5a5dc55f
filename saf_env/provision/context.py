"""What a build of an image reads: rendered from an image's plan, complete and verified.

The folder has ``Dockerfile``; ``interpreter/``: uv for the image's platform, a downloads table with
the one interpreter, its archive unless uv fetches that itself; and ``environment/``: the
requirements, what the marker of the environment has to say, and what verifies it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from saf_env.errors import ToolchainError
from saf_env.lock.downloads import Build
from saf_env.lock.model import Interpreter
from saf_env.plan.images import build_files, requirements
from saf_env.plan.model import ImagePlan
from saf_env.platforms import this_platform
from saf_env.provision.environments import marker_of
from saf_env.provision.folders import Notify, guard, read_json, write_json
from saf_env.provision.interpreters import ensure_interpreter
from saf_env.provision.pack import check_members, pack, sha256
from saf_env.provision.settings import Settings
from saf_env.provision.uv_binary import fetch_uv
from saf_env.uv import Uv

EPOCH = 315532800
"""Seconds: 1980, as in ``images/environment.py``."""


def render(image: ImagePlan, folder: Path, uv: Uv, reach: Settings, notify: Notify) -> None:
    """Write all that the build reads into the new ``folder``."""
    for name, data in build_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        # What is copied into the image as it is: the same modes and times at every build.
        path.chmod(0o644)
        os.utime(path, (EPOCH, EPOCH))
    environment = folder / "environment"
    for package in ("saf_env", "saf_env/provision"):
        (environment / package / "__init__.py").touch()
    env = image.environment
    text = "\n".join(requirements(env.lock.text)) + "\n"
    (environment / "requirements.txt").write_text(text, encoding="utf-8")
    write_json(environment / "plan.json", {"marker": marker_of(env)})
    (environment / "wheels").mkdir()
    _hand_in_wheels(reach, text, environment / "wheels")
    _render_interpreter(image, folder / "interpreter", uv, notify)
    platform, version = env.interpreter.platform, env.uv_version
    fetch_uv(version, platform, image.uv_wheel, folder / "interpreter" / "uv", uv)


def _hand_in_wheels(reach: Settings, text: str, folder: Path) -> None:
    """Copy the locked ones among the wheels of local folders."""
    locked = set(re.findall(r"sha256:([0-9a-f]{64})", text))
    for path in (p for f in reach.wheel_folders for p in sorted(f.glob("*.whl"))):
        if hashlib.sha256(path.read_bytes()).hexdigest() in locked:
            shutil.copyfile(path, folder / path.name)


def _render_interpreter(image: ImagePlan, folder: Path, uv: Uv, notify: Notify) -> None:
    """The downloads table for uv, and the archive if it is not fetched in the build."""
    interpreter = image.environment.interpreter
    url, digest, build = interpreter.url, interpreter.sha256, interpreter.build
    if interpreter.source == "system":
        here = this_platform()
        if here is None or interpreter.platform != here.name:
            raise ToolchainError(
                f"the lock's interpreter for {interpreter.platform} is one of the machine that "
                "locked, and this machine cannot pack it",
                hint="`saf-env lock --python-source managed`, or give packed interpreters in "
                "[python.archives]: `saf-env toolchain pack` makes them",
            )
        name = f"cpython-{interpreter.version}-{interpreter.platform}.tar.gz"
        shutil.copyfile(packed(interpreter, uv, notify), folder / name)
        url, digest, build = Path("/tmp/build", name).as_uri(), sha256(folder / name), "packed"
    elif "://" not in url:
        archive = uv.home / url
        if not archive.is_file():
            raise ToolchainError(
                f"the interpreter archive {url} is not in the project folder",
                hint="put the file there, or lock with another source of Python",
            )
        if archive.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
            check_members(archive)
        shutil.copyfile(archive, folder / archive.name)
        url = Path("/tmp/build", archive.name).as_uri()
    key, row = Build(interpreter.platform, interpreter.version, build, url, digest).row()
    write_json(folder / "downloads.json", {key: row})
    (folder / "key").write_text(key, encoding="ascii")


def packed(interpreter: Interpreter, uv: Uv, notify: Notify) -> Path:
    """The pack of a system interpreter: made once, and anew when something in it has changed."""
    place = uv.home / ".saf" / "python" / f"packed-{interpreter.sha256[:16]}.tar.gz"
    memory = place.with_suffix(".json")
    with guard(place, notify):
        known = read_json(memory)
        unchanged = bool(known) and _stamps(known["stamps"]) == known["stamps"]
        if unchanged and place.is_file() and sha256(place) == known["sha256"]:
            return place
        made = pack(ensure_interpreter(interpreter, uv, notify), place, uv, notify)
        if made.digest != interpreter.sha256:
            raise ToolchainError(
                f"CPython {interpreter.version} of this machine has changed while it was packed",
                hint="run the command again",
            )
        value = {
            "sha256": made.sha256,
            "stamps": _stamps([pack.__code__.co_filename, *made.binaries]),
        }
        write_json(memory, value)
    return place


def _stamps(files: Iterable[str]) -> dict[str, list[int]]:
    """What changes when a file does, by path; nothing for a file that is gone."""
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            seen = os.stat(file)
            found[file] = [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]
    return found

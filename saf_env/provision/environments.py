"""Environments, installed by uv and believed only when every file was verified.

uv takes an interrupted install for a complete one and an edited file for an intact one. So an
environment is made in a fresh folder, its files are compared with their packages' RECORD, a
manifest and a marker are written, and the folder is renamed into place. One that is not sound is
replaced, never repaired.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.plan.model import EnvironmentPlan
from saf_env.provision import record
from saf_env.provision.failures import failed
from saf_env.provision.folders import (
    Notify,
    fresh,
    guard,
    publish,
    read_json,
    remove,
    sync,
    write_json,
)
from saf_env.provision.interpreters import ensure_interpreter, examine
from saf_env.uv import Uv

SCHEMA = 1
_SECONDS = 1800.0  # 400 MB at 2 Mbit/s


def ready(env: EnvironmentPlan) -> bool:
    """Whether ``env`` was made, verified and published as planned; its files are not looked at."""
    marker = read_json(env.path / probe.MARKER)
    expected = marker_of(env)
    return (
        {key: marker.get(key) for key in expected} == expected
        and (env.path / probe.MANIFEST).is_file()
        and (env.path / probe.PYTHON_MANIFEST).is_file()
        and os.access(env.python, os.X_OK)
    )


def ensure_environment(
    env: EnvironmentPlan,
    uv: Uv,
    notify: Notify,
    *,
    rebuild: bool = False,
    pack: Interpreter | None = None,
) -> bool:
    """Make ``env`` on this machine unless it is there.

    Args:
        env: what is wanted.
        uv: the pinned uv.
        notify: gets one line for each step that takes time.
        rebuild: make it anew even if it is there, because its files were found changed.
        pack: its interpreter as an archive that is on this host, where the controller has it in
            another place, or on its system; by its digest it is made sure to be the very one.

    Returns:
        Whether it was made.

    Raises:
        ToolchainError: it cannot be made exactly as locked; an older one is left as it was.
        BusyError: another saf-env has been making it for too long.
    """
    if not rebuild and ready(env):
        return False
    python = ensure_interpreter(pack or env.interpreter, uv, notify)
    with guard(env.path, notify):
        if not rebuild and ready(env):
            return False
        with fresh(env.path) as folder:
            _make(env, uv, python, folder, notify)
            publish(folder / "env", env.path)
    return True


def marker_of(env: EnvironmentPlan) -> dict[str, Any]:
    """What the marker of ``env`` must say."""
    return {
        "schema": SCHEMA,
        "key": env.key,
        "environment_sha256": env.lock.sha256,
        "interpreter": vars(env.interpreter),
        "packages": dict(env.packages),
        "uv_version": env.uv_version,
    }


def _make(env: EnvironmentPlan, uv: Uv, python: Path, folder: Path, notify: Notify) -> None:
    notify(f"{env.key}: installing {len(env.packages)} packages")
    seen = _install(env, uv, python, folder)
    if wrong := seen.damages:
        notify(f"{env.key}: a file from uv's cache is damaged, fetching anew: {wrong[0].text}")
        _forget(env, uv, folder, wrong)
        seen = _install(env, uv, python, folder)
    if wrong := seen.damages:
        raise ToolchainError(
            f"{env.key}: {len(wrong)} installed files are not what their packages promise:\n"
            + "\n".join(damage.text for damage in wrong[:10]),
            hint="the package itself is wrong, or something changes files while they are "
            "installed; nothing of it is used. Lock another version of the package",
        )
    _mark(env, uv, folder / "env", seen.files)


def _install(env: EnvironmentPlan, uv: Uv, python: Path, folder: Path) -> record.Examined:
    """Let uv install ``env`` in ``folder/env`` and look at every file."""
    root = folder / "env"
    remove(root)
    made = uv.run(
        ["venv", "--relocatable", "--no-project", "--python", str(python), str(root)], cwd=folder
    )
    if not made.ok:
        raise failed(f"make {env.key}", made)
    own = record.files_of(root)
    requirements = folder / "requirements.txt"
    requirements.write_text(env.lock.text, encoding="utf-8")
    # A copy shares nothing with the cache; a clone on APFS is one, and free.
    link_mode = "clone" if env.interpreter.platform.startswith("macos-") else "copy"
    argv = ["pip", "install", "--python", str(root / "bin" / "python"), "--require-hashes"]
    argv += ["--only-binary", ":all:", "--no-deps", "--link-mode", link_mode]
    argv += ["--compile-bytecode", "-r", str(requirements)]
    # The digests decide what is installed, wherever it comes from: ask the cache alone first, so
    # that nothing waits for a network that is slow or not there.
    done = uv.run([*argv, "--offline"], timeout=_SECONDS, cwd=folder)
    if not done.ok:
        done = uv.run(argv, timeout=_SECONDS, cwd=folder)
    if not done.ok:
        raise failed(f"install {env.key}", done)
    _compare(env, root)
    return record.examine(root, own)


def _compare(env: EnvironmentPlan, root: Path) -> None:
    """Refuse an environment that has other packages than the lock has for this platform."""
    from saf_env.preflight.packages import differences

    found = probe.distributions(str(record.site_packages(root)))
    wrong = differences(env.packages, found)
    if wrong.any:
        raise ToolchainError(
            f"{env.key}: uv has not installed what the lock says: {wrong}",
            hint="run `saf-env lock` to make a new lock",
        )


def _forget(env: EnvironmentPlan, uv: Uv, folder: Path, wrong: Sequence[record.Damage]) -> None:
    """Remove from uv's cache the packages that damaged files came from."""
    names = {damage.package for damage in wrong}
    clean = sorted(env.packages if "" in names else names)
    result = uv.run(["cache", "clean", *clean], cwd=folder)
    if not result.ok:
        raise failed("clean uv's cache of damaged packages", result)


def _mark(env: EnvironmentPlan, uv: Uv, root: Path, files: Mapping[str, record.Seen]) -> None:
    """Write down what was verified: first every file, then, last of all, the marker."""
    seen = examine(root / "bin" / "python", uv)
    if env.interpreter.source == "system" and seen["digest"] != env.interpreter.sha256:
        raise ToolchainError(
            f"{env.key}: {seen['executable']} has changed while the environment was made",
            hint="run the command again",
        )
    library = write_json(root / probe.PYTHON_MANIFEST, record.library(Path(seen["stdlib"])))
    data = write_json(root / probe.MANIFEST, record.manifest(root, files))
    verified = {
        "interpreter_digest": seen["digest"],
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "python_manifest_sha256": hashlib.sha256(library).hexdigest(),
    }
    write_json(root / probe.MARKER, {**marker_of(env), **verified})
    sync(root)

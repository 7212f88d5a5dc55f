"""Makes another host what the plan says, with nothing on it but sshd, ``sh`` and a home.

It is sent the locked uv, the interpreter where it is a file of ours, and saf-env's own code. uv
installs the interpreter by digest, and under that :mod:`saf_env.provision.there` makes the
environments: from the index, or, where the host reaches none, from wheels that it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.lock.packages import render
from saf_env.plan.model import EnvironmentPlan, HostPlan
from saf_env.platforms import this_platform
from saf_env.provision import there
from saf_env.provision.archives import fetch_archive
from saf_env.provision.boot import Place, Seen, install, look, relink
from saf_env.provision.code import sources
from saf_env.provision.context import packed
from saf_env.provision.digests import digests
from saf_env.provision.environments import marker_of
from saf_env.provision.failures import OFFLINE
from saf_env.provision.folders import Notify, guard
from saf_env.provision.pack import check_members, sha256
from saf_env.provision.uv_binary import fetch_uv
from saf_env.provision.wheels import fetch_wheels, pins_of
from saf_env.transports.base import FileTransport
from saf_env.uv import Uv, pinned_version, pinned_wheels

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
_SENDING = 3600.0  # 400 MB at 1 Mbit/s
_INSTALLING = 3600.0

_MARKERS = 'for f; do cat -- "$f" 2>/dev/null; echo; done'  # a line each, empty without one

# Our code, unpacked unless it is there, answers one request.
_RUN = """
import os, shutil, sys, zipfile
folder = sys.argv[1]
if not os.path.isdir(folder):
    new = folder + ".new"
    shutil.rmtree(new, ignore_errors=True)
    zipfile.ZipFile(folder + ".zip").extractall(new)
    os.rename(new, folder)
sys.path.insert(0, folder)
from saf_env.provision.there import main
main()
"""

_INDEX_SETTINGS = (
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_INSECURE_HOST",
    "UV_PYTHON_INSTALL_MIRROR",
)
"""What of the user's settings for uv is as true on another host as here."""


def unready(
    host: HostPlan, way: FileTransport, environments: Sequence[EnvironmentPlan]
) -> list[EnvironmentPlan]:
    """Those of ``environments`` that ``host`` does not have, made and verified as planned."""
    markers = [str(env.path / probe.MARKER) for env in environments]
    seen = way.run(["sh", "-c", _MARKERS, "sh", *markers], env=_PATH, timeout=30.0)
    texts = seen.stdout.split("\n") if seen.ok else []
    return [
        env
        for env, text in zip(environments, [*texts, *[""] * len(markers)], strict=False)
        if not _is_made(env, text)
    ]


def _is_made(env: EnvironmentPlan, text: str) -> bool:
    try:
        marker = json.loads(text)
        return {key: marker.get(key) for key in marker_of(env)} == marker_of(env)
    except (ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class _File:
    """One to send: what messages call it, where it is here and there, and its permissions."""

    what: str
    source: Path
    target: PurePosixPath
    mode: int = 0o600


class Provisioner:
    """Makes environments on one other host.

    Args:
        host: which.
        home: absolute path of the folder that saf-env has there.
        way: to it.
        uv: the pinned uv of this machine.
        step: gets one line for each step that takes time.
    """

    def __init__(
        self, host: HostPlan, home: PurePosixPath, way: FileTransport, uv: Uv, step: Notify
    ) -> None:
        self._host = host
        self._home = home
        self._way = way
        self._uv = uv
        self._step = step

    def make(
        self,
        interpreter: Interpreter,
        uv_version: str,
        environments: Sequence[EnvironmentPlan],
        *,
        rebuild: bool = False,
    ) -> None:
        """Make the Python by which the host is looked at, and environments.

        Args:
            interpreter: of all of them.
            uv_version: of the uv that installs them.
            environments: none where the host only has containers.
            rebuild: make those that are there anew.

        Raises:
            HostUnreachableError: the connection was lost; running it again goes on.
            ToolchainError: something cannot be had there exactly as locked.
        """
        binary = self._uv_file(uv_version)
        sent, archive = self._own_archive(interpreter)
        trial = render(pins_of(environments[0])[:1]) if environments else ""
        try:
            place, lost = self._boot(sent or interpreter, archive, binary, trial)
        except ToolchainError as error:
            if sent or error.hint != OFFLINE:
                raise
            self._tell("it reaches no release server; sending it the interpreter")
            file = fetch_archive(interpreter, self._uv, self._tell)
            check_members(file)
            sent, archive = self._as_sent(interpreter, file)
            place, lost = self._boot(sent, archive, binary, trial)
        if not environments:
            return
        names = ", ".join(env.lock.name for env in environments)
        self._tell(f"installing {names}")

        def ask(wheels: Mapping[str, Path], **settings: str) -> dict[str, Any]:
            home, uv = Path(self._home), Path(binary.target)
            wish = there.request(
                [*environments], sent, self._host.name, home, uv, settings, rebuild
            )
            return self._ask(place, wish, wheels)

        answer: dict[str, Any] = {"hint": OFFLINE, "wheels": []}
        if not lost:
            answer = ask({}, **self._index_settings())
        if answer.get("hint") == OFFLINE:
            self._tell("it reaches no package index; sending it the packages")
            wheels = self._wheels(environments, answer["wheels"])
            folder = str(there.wheels_of(Path(self._home)))
            answer = ask(wheels, UV_NO_INDEX="1", UV_OFFLINE="1", UV_FIND_LINKS=folder)
        if answer:
            raise ToolchainError(answer["error"], hint=answer["hint"])

    # What is sent

    def _uv_file(self, version: str) -> _File:
        """The locked uv for the host."""
        platform = self._host.platform
        if version != pinned_version():
            raise ToolchainError(
                f"the lock was made with uv {version}, this saf-env has {pinned_version()}",
                hint="run `saf-env lock` and look at what changes",
            )
        local = self._uv.home / ".saf" / "uv" / version / platform / "uv"
        with guard(local, self._tell):
            if not local.is_file():
                fetch_uv(version, platform, pinned_wheels()[platform], local, self._uv)
        target = self._home / ".saf" / "uv" / version / "bin" / "uv"
        return _File("uv", local, target, 0o755)

    def _own_archive(self, interpreter: Interpreter) -> tuple[Interpreter | None, _File | None]:
        """An interpreter that is a file of this machine, as the host has it; None for an address.

        One that was found on a system is packed: another host's own is another build.
        """
        if interpreter.source == "system":
            here = this_platform()
            if here is None or here.name != interpreter.platform:
                raise ToolchainError(
                    f"{self._host.name}: the lock's interpreter for {interpreter.platform} is one "
                    "of the machine that locked, and this machine cannot pack it",
                    hint="`saf-env lock --python-source managed`, or give packed interpreters in "
                    "[python.archives]: `saf-env toolchain pack` makes them",
                )
            archive = packed(interpreter, self._uv, self._tell)
            interpreter = replace(
                interpreter, source="archive", build="packed", sha256=sha256(archive)
            )
        elif "://" in interpreter.url:
            return None, None
        else:
            archive = self._uv.home / interpreter.url
            if not archive.is_file():
                raise ToolchainError(
                    f"the interpreter archive {interpreter.url} is not in the project folder",
                    hint="put the file there, or lock with another source of Python",
                )
            check_members(archive)
        return self._as_sent(interpreter, archive)

    def _as_sent(self, interpreter: Interpreter, archive: Path) -> tuple[Interpreter, _File]:
        """The interpreter as the host has it once it was sent its archive, and that."""
        name = f".saf/python/{archive.name}"
        file = _File(f"CPython {interpreter.version}", archive, self._home / name)
        return replace(interpreter, url=name), file

    def _wheels(
        self, environments: Sequence[EnvironmentPlan], has: Sequence[str]
    ) -> dict[str, Path]:
        """The wheels of ``environments`` that the host has not, by their digests."""
        found: dict[str, Path] = {}
        for env in environments:
            found |= fetch_wheels(env, self._uv, self._tell)
        missing = {digest: wheel for digest, wheel in found.items() if digest not in has}
        size = sum(wheel.stat().st_size for wheel in missing.values())
        self._tell(f"sending {len(missing)} packages, {size / 1e6:.0f} MB")
        return missing

    def _send(self, files: Sequence[_File], seen: Sequence[str]) -> None:
        """Send files unless the host has the very same: ``seen`` are the digests there."""
        wanted = {file: sha256(file.source) for file in files}
        missing = [f for f, digest in zip(files, seen, strict=True) if digest != wanted[f]]
        for file in missing:
            self._tell(f"sending {file.what}, {file.source.stat().st_size / 1e6:.0f} MB")
            self._way.put(file.source, str(file.target), mode=file.mode, timeout=_SENDING)
        if not missing:
            return
        now = digests(self._way, [file.target for file in missing])
        for file, digest in zip(missing, now, strict=True):
            if digest != wanted[file]:
                raise there.changed(self._host.name, str(file.target))

    # What is run there

    def _boot(
        self, interpreter: Interpreter, archive: _File | None, binary: _File, trial: str
    ) -> tuple[Place, bool]:
        """Send what the host needs before it runs anything of ours, and make its interpreter.

        Returns:
            Where that is, and whether it has turned out that the host reaches no index.
        """
        place, code = Place(self._home, interpreter), self._code_folder()
        files = [binary, *([archive] if archive else [])]
        seen = look(self._way, place, code, [file.target for file in files])
        if not seen.code:
            self._way.put(_code(), f"{code}.zip", timeout=_SENDING)
        if seen.sound:
            files = [binary]  # the archive has done its part
        self._send(files, seen.digests[: len(files)])
        # Who has our code already may have wheels too, and is to tell which.
        return place, self._install(place, seen, str(binary.target), "" if seen.code else trial)

    def _install(self, place: Place, seen: Seen, uv: str, trial: str) -> bool:
        if not seen.sound:
            self._tell(f"installing CPython {place.interpreter.version}")
            settings = {**self._login(), **self._index_settings()}
            return install(self._way, place, uv, settings, trial)
        if not seen.linked:
            relink(self._way, place)
        return False

    def _code_folder(self) -> PurePosixPath:
        """Where saf-env's own files are on the host."""
        return self._home / ".saf" / "code" / hashlib.sha256(_code()).hexdigest()[:16]

    def _ask(
        self, place: Place, wish: Mapping[str, Any], wheels: Mapping[str, Path]
    ) -> dict[str, Any]:
        """What the host answers to a request."""
        host = self._host.name
        argv = [place.python, "-I", "-S", "-c", _RUN, str(self._code_folder())]
        done = self._way.run(
            argv,
            env=self._login(),
            timeout=_SENDING + _INSTALLING,
            stdin=there.tar(wish, wheels, host),
        )
        try:
            answer: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
        except ValueError as error:
            raise ToolchainError(
                f"{host}: {place.python} gave no answer:\n{done.tail(8)}",
                hint="look at what is named above, then run the same command again; if it stays "
                "so, run `saf-env down --purge`, then `saf-env up`",
            ) from error
        return answer

    def _login(self) -> dict[str, str]:
        return {**_PATH, "HOME": str(self._home), "LANG": "C.UTF-8"}

    def _index_settings(self) -> dict[str, str]:
        given = self._uv.variables()
        found = {k: v for k, v in given.items() if k in _INDEX_SETTINGS or _is_credential(k)}
        # What a host cannot get at once, it is sent.
        return {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "5", **found}

    def _tell(self, text: str) -> None:
        self._step(f"{self._host.name}: {text}")


def _is_credential(name: str) -> bool:
    return name.startswith("UV_INDEX_") and name.endswith(("_USERNAME", "_PASSWORD"))


@cache
def _code() -> bytes:
    """What makes environments on another host."""
    import filelock

    return sources(filelock)

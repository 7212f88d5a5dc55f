"""Makes another host what the plan says, with nothing on it but sshd, ``sh`` and a home.

It is sent the locked uv, the interpreter where it is a file of ours, and saf-env's own code. uv
installs the interpreter by digest, and under that :mod:`saf_env.provision.there` makes the
environments: from the index, or, where the host reaches none, from wheels that it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.downloads import Build
from saf_env.lock.model import Interpreter
from saf_env.plan.build import agent_python
from saf_env.plan.model import EnvironmentPlan, HostPlan
from saf_env.platforms import this_platform
from saf_env.provision.archives import fetch_archive
from saf_env.provision.code import sources
from saf_env.provision.context import packed
from saf_env.provision.environments import marker_of
from saf_env.provision.failures import OFFLINE, failed
from saf_env.provision.folders import Notify, guard
from saf_env.provision.pack import check_members, sha256
from saf_env.provision.there import request
from saf_env.provision.uv_binary import fetch_uv
from saf_env.provision.wheels import fetch_wheels
from saf_env.transports.base import CommandResult, FileTransport
from saf_env.uv import Uv, pinned_version, pinned_wheels

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
_SENDING = 3600.0  # 400 MB at 1 Mbit/s
_INSTALLING = 3600.0

_MARKERS = 'for f; do cat -- "$f" 2>/dev/null; echo; done'  # a line each, empty without one

# Digest of a file, wherever one of the usual commands is; nothing for a file that is not there.
_DIGEST = '[ ! -f "$1" ] || { sha256sum -- "$1" 2>/dev/null || shasum -a 256 -- "$1"; }'

_RUN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from saf_env.provision.there import main; main()"
)
_UNPACK = (
    "import os, shutil, sys, zipfile; folder = sys.argv[1]; new = folder + '.new'; "
    "shutil.rmtree(new, ignore_errors=True); zipfile.ZipFile(folder + '.zip').extractall(new); "
    "shutil.rmtree(folder, ignore_errors=True); os.rename(new, folder)"
)

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
        binary = self._send_uv(uv_version)
        pack = self._send_interpreter(interpreter)
        try:
            python = self._boot(pack or interpreter, binary)
        except ToolchainError as error:
            if pack or error.hint != OFFLINE:
                raise
            self._tell("it reaches no release server; sending it the interpreter")
            pack = self._send_archive(interpreter, fetch_archive(interpreter, self._uv, self._tell))
            python = self._boot(pack, binary)
        if not environments:
            return
        code = self._send_code(python)

        def ask(**settings: str) -> dict[str, str]:
            wish = request(
                [*environments],
                pack,
                self._host.name,
                Path(self._home),
                Path(binary),
                settings,
                rebuild,
            )
            argv = [python, "-I", "-S", "-c", _RUN, code]
            done = self._run(argv, timeout=_INSTALLING, stdin=json.dumps(wish))
            try:
                answer: dict[str, str] = json.loads(done.stdout.rpartition("\n")[2])
            except ValueError as error:
                raise ToolchainError(
                    f"{self._host.name}: {python} gave no answer: {done.tail(3)}",
                    hint="run `saf-env down --purge`, then `saf-env up`",
                ) from error
            return answer

        names = ", ".join(env.lock.name for env in environments)
        self._tell(f"installing {names}")
        answer = ask(**self._index_settings())
        if answer.get("hint") == OFFLINE:
            self._tell("it reaches no package index; sending it the packages")
            wheels = self._send_wheels(environments)
            answer = ask(UV_NO_INDEX="1", UV_OFFLINE="1", UV_FIND_LINKS=wheels)
        if answer:
            raise ToolchainError(answer["error"], hint=answer["hint"])

    # What is sent

    def _send_uv(self, version: str) -> str:
        """The locked uv on the host."""
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
        there = self._home / ".saf" / "uv" / version / "bin" / "uv"
        self._send(local, there, mode=0o755, what="uv")
        return str(there)

    def _send_interpreter(self, interpreter: Interpreter) -> Interpreter | None:
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
            name = f".saf/python/packed-{interpreter.sha256[:16]}.tar.gz"
            found = replace(
                interpreter, source="archive", build="packed", url=name, sha256=sha256(archive)
            )
        elif "://" in interpreter.url:
            return None
        else:
            archive = self._uv.home / interpreter.url
            if not archive.is_file():
                raise ToolchainError(
                    f"the interpreter archive {interpreter.url} is not in the project folder",
                    hint="put the file there, or lock with another source of Python",
                )
            return self._send_archive(interpreter, archive)
        self._send(archive, self._home / name, what=f"CPython {interpreter.version}")
        return found

    def _send_archive(self, interpreter: Interpreter, archive: Path) -> Interpreter:
        """The interpreter as the host has it once it was sent its archive."""
        check_members(archive)
        name = f".saf/python/{archive.name}"
        self._send(archive, self._home / name, what=f"CPython {interpreter.version}")
        return replace(interpreter, url=name)

    def _send_code(self, python: str) -> str:
        """saf-env's own files, unpacked on the host."""
        data = _code()
        folder = self._home / ".saf" / "code" / hashlib.sha256(data).hexdigest()[:16]
        there = self._way.run(["test", "-d", str(folder)], env=_PATH, timeout=30.0)
        if not there.ok:
            self._way.put(data, f"{folder}.zip", timeout=_SENDING)
            self._run([python, "-I", "-S", "-c", _UNPACK, str(folder)], timeout=60.0)
        return str(folder)

    def _send_wheels(self, environments: Sequence[EnvironmentPlan]) -> str:
        """The wheels of ``environments``, in a folder on the host."""
        found = {w for env in environments for w in fetch_wheels(env, self._uv, self._tell)}
        folder = self._home / ".saf" / "cache" / "wheels"
        listed = self._way.run(["ls", str(folder)], env=_PATH, timeout=30.0)
        missing = sorted(found - {w for w in found if w.name in listed.stdout.split("\n")})
        size = sum(wheel.stat().st_size for wheel in missing)
        self._tell(f"sending {len(missing)} packages, {size / 1e6:.0f} MB")
        for wheel in missing:
            self._way.put(wheel, str(folder / wheel.name), timeout=_SENDING)
        return str(folder)

    def _send(self, source: Path, target: PurePosixPath, *, what: str, mode: int = 0o600) -> None:
        """Send a file unless the host has the very same."""
        digest = sha256(source)
        if self._digest(target) == digest:
            return
        self._tell(f"sending {what}, {source.stat().st_size / 1e6:.0f} MB")
        self._way.put(source, str(target), mode=mode, timeout=_SENDING)
        if self._digest(target) != digest:
            raise ToolchainError(
                f"{self._host.name}: {target} is not what was sent",
                hint="run the command again; something on the way, or on that disk, changes files",
            )

    def _digest(self, path: PurePosixPath) -> str:
        seen = self._way.run(["sh", "-c", _DIGEST, "sh", str(path)], env=_PATH, timeout=60.0)
        return seen.stdout.split(" ")[0].lstrip("\\") if seen.ok else ""

    # What is run there

    def _boot(self, interpreter: Interpreter, binary: str) -> str:
        """The interpreter that our own files run under there, installed by uv, by digest."""
        url = interpreter.url
        if "://" not in url:
            url = (self._home / url).as_uri()
        build = Build(
            interpreter.platform, interpreter.version, interpreter.build, url, interpreter.sha256
        )
        key, row = build.row()
        place = self._home / ".saf" / "python" / f"agent-{interpreter.sha256[:12]}"
        minor = interpreter.version.rpartition(".")[0]
        python, link = place / key / "bin" / f"python{minor}", self._home / agent_python(Path())
        ready = ["sh", "-c", '[ "$(readlink "$1")" = "$2" ] && "$1" -I -S -c ""', "sh"]
        if self._way.run([*ready, str(link), str(python)], env=_PATH, timeout=30.0).ok:
            return str(python)
        self._tell(f"installing CPython {interpreter.version}")
        table = place.with_suffix(".json")
        self._way.put(json.dumps({key: row}).encode(), str(table), timeout=60.0)
        self._run(["rm", "-rf", str(place)], timeout=60.0)
        settings = {
            **self._index_settings(),
            "UV_CACHE_DIR": str(self._home / ".saf" / "cache" / "uv"),
            "UV_PYTHON_DOWNLOADS": "manual",
            "UV_PYTHON_DOWNLOADS_JSON_URL": str(table),
            "UV_PYTHON_INSTALL_DIR": str(place),
            "UV_NO_PROGRESS": "1",
        }
        argv = [binary, "python", "install", "--no-bin", "--no-config", key]
        done = self._way.run(argv, env={**self._login(), **settings}, timeout=_INSTALLING)
        if not done.ok:
            raise failed(f"get CPython {interpreter.version} from {interpreter.url}", done)
        self._run(["ln", "-sfn", str(python), str(link)], timeout=30.0)
        return str(python)

    def _run(self, argv: list[str], *, timeout: float, stdin: str = "") -> CommandResult:
        done = self._way.run(argv, env=self._login(), timeout=timeout, stdin=stdin)
        if not done.ok:
            raise ToolchainError(
                f"{self._host.name}: {PurePosixPath(argv[0]).name} failed:\n{done.tail(8)}",
                hint="look at what is named above, then run the same command again",
            )
        return done

    def _login(self) -> dict[str, str]:
        return {**_PATH, "HOME": str(self._home), "LANG": "C.UTF-8"}

    def _index_settings(self) -> dict[str, str]:
        given = self._uv.variables()
        found = {k: v for k, v in given.items() if k in _INDEX_SETTINGS or _is_credential(k)}
        # A host without a way to the index is soon told from one with a slow way.
        return {"UV_HTTP_RETRIES": "1", "UV_HTTP_CONNECT_TIMEOUT": "5", **found}

    def _tell(self, text: str) -> None:
        self._step(f"{self._host.name}: {text}")


def _is_credential(name: str) -> bool:
    return name.startswith("UV_INDEX_") and name.endswith(("_USERNAME", "_PASSWORD"))


@cache
def _code() -> bytes:
    """What makes environments on another host."""
    import filelock

    return sources(filelock)

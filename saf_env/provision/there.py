"""Runs on another host, sent there with the rest of saf-env: makes environments as everywhere.

In comes one tar on standard input: a request, and wheels for a host that reaches no package index.
Out goes one answer in JSON; progress is on stderr. The host needs nothing but the uv and the
interpreter that the controller has put there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import SafEnvError, ToolchainError
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan
from saf_env.provision.environments import ensure_environment
from saf_env.provision.failures import OFFLINE
from saf_env.provision.folders import unwritable
from saf_env.transports.local import LocalTransport
from saf_env.transports.source import parts, size_of
from saf_env.uv import Uv

_BUFFER = 1 << 20


def request(
    environments: list[EnvironmentPlan],
    pack: Interpreter | None,
    host: str,
    home: Path,
    uv: Path,
    variables: dict[str, str],
    rebuild: bool,
) -> dict[str, Any]:
    """What :func:`main` reads.

    Args:
        environments: which to make; their paths may be relative to the user's home.
        pack: the packed form of their interpreter where it was found on a system.
        host: what messages call the host.
        home: the folder of saf-env there.
        uv: the binary there.
        variables: settings of uv.
        rebuild: make them anew even if they are there.
    """
    return {
        "environments": [
            {
                **vars(env),
                "lock": vars(env.lock),
                "interpreter": vars(env.interpreter),
                "packages": dict(env.packages),
                "path": str(env.path),
            }
            for env in environments
        ],
        "pack": vars(pack) if pack else None,
        "host": host,
        "home": str(home),
        "uv": str(uv),
        "variables": variables,
        "rebuild": rebuild,
    }


def tar(wish: Mapping[str, Any], wheels: Mapping[str, Path], host: str) -> Iterator[bytes]:
    """The tar that :func:`main` reads, part by part.

    Args:
        wish: a :func:`request`.
        wheels: files of this machine by their SHA-256 in hex.
        host: what messages call the host.
    """
    members: list[tuple[str, Path | bytes]] = [("request", json.dumps(wish).encode())]
    members += [(f"{digest}/{wheel.name}", wheel) for digest, wheel in wheels.items()]
    for name, source in members:
        entry = tarfile.TarInfo(name)
        entry.size = size_of(source, host)
        yield entry.tobuf()
        yield from parts(source)
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def take(members: Iterable[tuple[str, Iterable[bytes]]], folder: Path, host: str) -> None:
    """Write wheels to ``folder``, each only when it is what was meant.

    Args:
        members: their names, each with its SHA-256 in hex before it, and what is in them.
        folder: where to.
        host: what messages call the host.

    Raises:
        ToolchainError: one has changed on the way, or cannot be written.
    """
    try:
        for name, content in members:
            folder.mkdir(parents=True, exist_ok=True)
            digest, _, file = name.partition("/")
            new, seen = folder / f".{os.path.basename(file)}.new", hashlib.sha256()
            with new.open("wb") as target:
                for part in content:
                    seen.update(part)
                    target.write(part)
            if seen.hexdigest() != digest:
                new.unlink()
                raise changed(host, file)
            new.replace(folder / os.path.basename(file))
    except OSError as error:
        raise unwritable(folder, error) from error


def changed(host: str, what: str) -> ToolchainError:
    """The error for a file that is not what was sent."""
    return ToolchainError(
        f"{host}: {what} is not what was sent",
        hint="run the command again; something on the way, or on that disk, changes files",
    )


def wheels_of(home: Path) -> Path:
    """Where the wheels lie that a host was sent."""
    return home / ".saf" / "cache" / "wheels"


def make(value: dict[str, Any]) -> dict[str, Any]:
    """Make what a :func:`request` asks for; a failure that was foreseen is an answer too.

    Where it needs an index that cannot be reached, the answer has the digests of the ``wheels``
    that are there.
    """
    home = Path(value["home"]).absolute()
    environ = {**os.environ, **value["variables"]}
    uv = Uv(LocalTransport(value["host"]), Path(value["uv"]).absolute(), home, environ)
    pack = Interpreter(**value["pack"]) if value["pack"] else None
    try:
        for one in value["environments"]:
            environment = EnvironmentPlan(
                **{
                    **one,
                    "lock": EnvironmentLock(**one["lock"]),
                    "interpreter": Interpreter(**one["interpreter"]),
                    "path": Path(one["path"]).absolute(),
                }
            )
            ensure_environment(environment, uv, _tell, rebuild=value["rebuild"], pack=pack)
    except SafEnvError as error:
        answer: dict[str, Any] = {"error": error.message, "hint": error.hint}
        return {**answer, "wheels": _there(wheels_of(home))} if error.hint == OFFLINE else answer
    return {}


def _there(folder: Path) -> list[str | None]:
    wheels = list(folder.glob("*.whl"))
    sizes = [wheel.stat().st_size for wheel in wheels]
    return list(probe.digests([str(wheel) for wheel in wheels], sizes).values())


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Answer one request."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=_BUFFER) as members:
        json.dump(_answer(members), sys.stdout)


def _answer(archive: tarfile.TarFile) -> dict[str, Any]:
    members = ((entry.name, _content(archive, entry)) for entry in archive)
    try:
        value = json.loads(b"".join(next(members)[1]))
        take(members, wheels_of(Path(value["home"])), value["host"])
    except SafEnvError as error:
        return {"error": error.message, "hint": error.hint}
    return make(value)


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(entry)
    while file and (part := file.read(_BUFFER)):
        yield part

"""CPythons that this machine has already: found without uv, examined by the probe.

``uv python list`` asks every name on ``PATH``, pyenv's shims included, which takes a second; here
each distinct binary is run once, all of them at the same time.
"""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.errors import SafEnvError
from saf_env.lock.model import Interpreter
from saf_env.platforms import this_platform
from saf_env.uv import Uv

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_PROBE = Path(__file__).parent.parent / "probe.py"
_NAME = re.compile(r"python(3(\.\d+)?)?")
_MINOR = re.compile(r"python3\.(\d+)")
# Mach-O (thin and universal) and ELF: what starts with anything else is a script, such as a shim.
_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_NEEDED = "import ctypes, ssl, zlib"


@dataclass(frozen=True)
class Found:
    """A CPython on this machine.

    Attributes:
        path: the real path of its binary.
        interpreter: as a lock records it.
        problem: why it cannot be used; empty when it can.
    """

    path: Path
    interpreter: Interpreter
    problem: str = ""


def installed(uv: Uv, wanted: SpecifierSet | None = None) -> list[Found]:
    """The CPythons of this machine, newest first, then in the order of ``PATH``.

    Args:
        uv: whose transport and environment are used.
        wanted: leave out those whose file name says that they are outside of this range.
    """
    from concurrent.futures import ThreadPoolExecutor

    from packaging.version import Version

    paths = [p for p in candidates(uv.environ) if wanted is None or may_be_in(p, wanted)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda path: _ask(uv, path), paths)
        found = [_judged(path, a) for path, a in zip(paths, answers, strict=True) if a]
    return sorted(found, key=lambda f: Version(f.interpreter.version), reverse=True)


def find_system(uv: Uv, interpreter: Interpreter) -> Path | None:
    """Where the ``system`` interpreter of a lock is on this machine; None if it is not there."""
    from packaging.specifiers import SpecifierSet

    for found in installed(uv, SpecifierSet(f"=={interpreter.version}")):
        if found.interpreter == interpreter and not found.problem:
            return found.path
    return None


def usable(uv: Uv, found: Found) -> bool:
    """Whether the modules that Ray cannot do without are in it (CPython can be built without)."""
    try:
        return uv.transport.run(
            [str(found.path), "-I", "-S", "-c", _NEEDED], env=_variables(uv), timeout=10.0
        ).ok
    except SafEnvError:
        return False


def may_be_in(path: Path, wanted: SpecifierSet) -> bool:
    """Whether ``path`` could hold a version in the range ``wanted``, as far as its name tells."""
    minor = _MINOR.fullmatch(path.name)
    return minor is None or any(wanted.contains(f"3.{minor[1]}.{patch}") for patch in range(40))


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """Real paths of the binaries on this machine that are called like a Python, each once."""
    seen: dict[Path, None] = {}
    for path in _places(environ):
        real = Path(os.path.realpath(path))
        if real not in seen and os.access(real, os.X_OK) and _is_binary(real):
            seen[real] = None
    return list(seen)


def _places(environ: Mapping[str, str]) -> Iterator[str]:
    """``PATH``, pyenv's and uv's own interpreters, and the one that runs this."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        # Apple's /usr/bin/python3 is a stub that may open a dialog, and 3.9 behind it.
        if not folder or (sys.platform == "darwin" and folder == "/usr/bin"):
            continue
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        yield from (os.path.join(folder, name) for name in names if _NAME.fullmatch(name))
    home = environ.get("HOME", "/")
    pyenv = environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
    data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    yield from sorted(glob.glob(os.path.join(glob.escape(pyenv), "versions/*/bin/python3")))
    yield from sorted(glob.glob(os.path.join(glob.escape(data), "uv/python/cpython-*/bin/python3")))
    yield getattr(sys, "_base_executable", sys.executable)


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _ask(uv: Uv, path: Path) -> dict[str, Any] | None:
    """What the probe says under the interpreter at ``path``; None when it does not run there."""
    try:
        said = uv.transport.run(
            [str(path), "-I", "-S", str(_PROBE), "--interpreter"], env=_variables(uv), timeout=10.0
        )
        answer = json.loads(said.stdout) if said.ok else None
    except (SafEnvError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _variables(uv: Uv) -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {k: v for k in names if (v := uv.environ.get(k)) is not None}


def _judged(path: Path, answer: Mapping[str, Any]) -> Found:
    here = this_platform()
    problem = ""
    if answer["implementation"] != "cpython":
        problem = f"it is {answer['implementation']}"
    elif answer["free_threaded"] or answer["debug"]:
        problem = "it is a free-threaded or debug build"
    elif not re.fullmatch(r"\d+\.\d+\.\d+", answer["version"]):
        problem = "it is a prerelease"
    elif here is None or (answer["sys_platform"], answer["machine"]) != (
        here.sys_platform,
        here.machine,
    ):
        problem = f"it is built for {answer['sys_platform']} on {answer['machine']}"
    interpreter = Interpreter(
        platform=here.name if here else "",
        version=answer["version"],
        source="system",
        build=answer["build"],
        url="",
        sha256=answer["digest"],
    )
    return Found(path, interpreter, problem)

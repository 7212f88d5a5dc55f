"""Packs of real interpreters, installed by uv in another folder and tried there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.lock.system import candidates
from saf_env.platforms import this_platform
from saf_env.provision.interpreters import ensure_interpreter
from saf_env.provision.pack import PackedInterpreter, pack
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, find_uv

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packs are made on Linux")

# What the pack carries libraries for. zoneinfo has no data of its own: without that of the system
# or of the package tzdata it must say so.
TRIAL = """
import bz2, ctypes, hashlib, json, lzma, os, sqlite3, ssl, sys, uuid, zlib, zoneinfo
for module in (bz2, lzma, zlib):
    assert module.decompress(module.compress(b"x" * 1000)) == b"x" * 1000
database = sqlite3.connect(":memory:")
assert database.execute("select 6 * 7").fetchone() == (42,)
assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
assert hashlib.new("sha3_256", b"x").digest()
assert ctypes.CDLL(None).getpid() == os.getpid()
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: number + 1)
assert callback(41) == 42
assert uuid.uuid4().version == 4
zoneinfo.reset_tzpath([])
try:
    zoneinfo.ZoneInfo("Europe/Berlin")
except zoneinfo.ZoneInfoNotFoundError:
    pass
else:
    raise AssertionError("time zones from nowhere")
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if ".so" in line}
print(json.dumps([sys.base_prefix, sorted(libraries)]))
"""
GLIBC = ("ld-linux", "libc.", "libm.", "libdl.", "libpthread.", "librt.", "libutil.")


def interpreters() -> list[Path]:
    """The one that runs the tests, and one with and one without a shared library, if there are."""
    own = Path(probe.base_interpreter())
    kinds = {loads_library(own): own}
    for path in candidates(os.environ):
        name = path.name.removeprefix("python3.")
        if name.isdigit() and int(name) >= 10:
            kinds.setdefault(loads_library(path), path)
    return sorted(kinds.values())


def loads_library(path: Path) -> bool:
    return f"libpython{path.name.removeprefix('python')}.so".encode() in path.read_bytes()


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Uv:
    home = tmp_path_factory.mktemp("packs")
    environ = {**os.environ, "SAF_ENV_CACHE": str(home / "cache")}
    return Uv(LocalTransport(), find_uv(Path(__file__).parents[3]).binary, home, environ)


@pytest.fixture(scope="module", params=interpreters(), ids=lambda path: str(path).strip("/"))
def packed(request: pytest.FixtureRequest, uv: Uv) -> PackedInterpreter:
    said: list[str] = []
    made = pack(request.param, uv.home / f"{request.param.name}.tar.gz", uv, said.append)
    assert len(said) >= 1
    return made


def installed(packed: PackedInterpreter, uv: Uv) -> Path:
    """The interpreter that uv makes of it, in a folder of its own."""
    here = this_platform()
    assert here is not None
    locked = Interpreter(
        here.name, packed.version, "archive", "test", packed.path.as_uri(), packed.sha256
    )
    return ensure_interpreter(locked, uv, lambda _: None)


def run(python: Path, *arguments: str, code: str = "") -> str:
    done = subprocess.run(
        [str(python), *arguments, *(["-c", code] if code else [])],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_interpreter_gives_the_same_bytes(packed: PackedInterpreter, uv: Uv) -> None:
    original = next(path for path in packed.binaries if "/bin/" in path)
    (uv.home / "again").mkdir(exist_ok=True)
    again = pack(Path(original), uv.home / "again" / "x.tar.gz", uv, lambda _: None)
    assert again == dataclasses.replace(packed, path=again.path)
    assert not [p.name for p in again.path.parent.iterdir() if p != again.path]


def test_it_runs_elsewhere_with_its_own_libraries(packed: PackedInterpreter, uv: Uv) -> None:
    python = installed(packed, uv)
    prefix, libraries = json.loads(run(python, "-I", code=TRIAL))
    assert Path(prefix) == python.parents[1]
    strange = [lib for lib in libraries if not lib.startswith(prefix)]
    assert all(Path(lib).name.startswith(GLIBC) for lib in strange), strange


def test_it_is_known_as_the_original(packed: PackedInterpreter, uv: Uv) -> None:
    python = installed(packed, uv)
    seen = json.loads(run(python, "-I", "-S", probe.__file__, "--interpreter"))
    assert seen["digest"] == packed.digest
    assert Path(seen["executable"]) == python.resolve()
    (python.parents[1] / probe.PACK).rename(python.parents[1] / "away")
    alone = json.loads(run(python, "-I", "-S", probe.__file__, "--interpreter"))
    (python.parents[1] / "away").rename(python.parents[1] / probe.PACK)
    assert alone["digest"] != packed.digest


def test_it_makes_environments(packed: PackedInterpreter, uv: Uv, tmp_path: Path) -> None:
    python = installed(packed, uv)
    run(python, "-I", "-m", "venv", "--without-pip", str(tmp_path / "env"))
    prefix, _ = json.loads(run(tmp_path / "env" / "bin" / "python", "-I", code=TRIAL))
    assert Path(prefix) == python.parents[1]


def test_it_holds_what_a_runtime_needs_and_nothing_of_the_user(packed: PackedInterpreter) -> None:
    with tarfile.open(packed.path) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0, 0, "", "", 315532800)
    }
    assert {m.mode for m in members if not m.issym()} == {0o755, 0o644}
    unwanted = {"test", "idlelib", "site-packages", "dist-packages", "__pycache__", "tkinter"}
    assert not [name for name in names if unwanted & set(name.split("/"))]
    assert not [name for name in names if name.endswith((".a", ".pyc", ".h"))]
    minor = packed.version.rpartition(".")[0]
    scripts = {name for name in names if name.startswith("python/bin/")}
    assert scripts == {f"python/bin/python{v}" for v in ("", "3", minor)}
    assert packed.path.stat().st_size < 40_000_000


def test_its_settings_name_no_folder_of_the_user(packed: PackedInterpreter, uv: Uv) -> None:
    python = installed(packed, uv)
    found: dict[str, Any] = json.loads(
        run(python, "-I", code="import json, sysconfig; print(json.dumps(sysconfig.get_paths()))")
    )
    assert {key for key, path in found.items() if not path.startswith(str(python.parents[1]))} == (
        set()
    )
    home = os.path.expanduser("~")
    for settings in python.parents[1].rglob("_sysconfigdata*.py"):
        text = settings.read_text("utf-8").replace(str(python.parents[1]), "")
        assert f"{home}/.pyenv" not in text


def test_a_full_or_missing_folder_is_said(uv: Uv, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot write") as caught:
        pack(Path(sys.executable), tmp_path / "no" / "x.tar.gz", uv, lambda _: None)
    assert "300 MB free" in caught.value.hint


def test_an_interpreter_without_its_library_is_refused(uv: Uv, tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    with pytest.raises(ToolchainError, match="does not run"):
        pack(broken, tmp_path / "x.tar.gz", uv, lambda _: None)

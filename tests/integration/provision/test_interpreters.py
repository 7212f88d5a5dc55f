"""Interpreters: unpacked from an archive that is verified, or found on the system by digest."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.platforms import this_platform
from saf_env.provision.interpreters import ensure_interpreter


def quiet(_text: str) -> None:
    """Nobody looks."""


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter that runs the tests, packed as python-build-standalone packs its own."""
    path = tmp_path_factory.mktemp("archive") / "cpython.tar.gz"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    unused = {"test", "idlelib", "site-packages", "dist-packages", "__pycache__", "lib2to3"}

    def chosen(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = set(Path(info.name).parts)
        return None if parts & unused or "config-" in info.name else info

    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(probe.base_interpreter(), f"python/bin/{version}")
        for library in base.glob("lib/libpython*"):
            tar.add(library, f"python/lib/{library.name}")
        tar.add(base / "lib" / version, f"python/lib/{version}", filter=chosen)
    return path


class TestInterpreters:
    def locked(self, archive: Path, url: str) -> Interpreter:
        here = this_platform()
        assert here is not None
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        version = probe.interpreter()["version"]
        return Interpreter(here.name, version, "archive", archive.name, url, digest)

    def test_archive_is_unpacked_once(self, workshop: Any, archive: Path) -> None:
        shutil.copy(archive, workshop.home / "my python.tar.gz")
        wanted = self.locked(archive, "my python.tar.gz")
        said: list[str] = []
        python = ensure_interpreter(wanted, workshop.uv, said.append)
        assert python.is_relative_to(workshop.home / ".saf" / "python")
        assert len(said) == 1
        assert ensure_interpreter(wanted, workshop.uv, said.append) == python
        assert len(said) == 1
        env = dataclasses.replace(workshop.plan(), interpreter=wanted)
        workshop.make(env)
        assert workshop.intact(env)

    def test_unpacking_cut_short_is_done_again(self, workshop: Any, archive: Path) -> None:
        wanted = self.locked(archive, archive.as_uri())
        python = ensure_interpreter(wanted, workshop.uv, quiet)
        (marker,) = (workshop.home / ".saf" / "python").glob(f"*/{probe.MARKER}")
        marker.unlink()
        python.write_bytes(b"")
        assert ensure_interpreter(wanted, workshop.uv, quiet) == python
        assert python.stat().st_size > 0

    def test_flipped_byte_in_the_archive(self, workshop: Any, archive: Path) -> None:
        data = bytearray(archive.read_bytes())
        data[len(data) // 2] ^= 1
        (workshop.home / "p.tar.gz").write_bytes(data)
        with pytest.raises(ToolchainError) as caught:
            ensure_interpreter(self.locked(archive, "p.tar.gz"), workshop.uv, quiet)
        assert "cannot get CPython" in caught.value.message
        assert not list((workshop.home / ".saf" / "python").glob("cpython-*"))

    def test_another_version_in_the_archive(self, workshop: Any, archive: Path) -> None:
        wanted = dataclasses.replace(self.locked(archive, archive.as_uri()), version="3.10.99")
        with pytest.raises(ToolchainError):
            ensure_interpreter(wanted, workshop.uv, quiet)

    def test_archive_missing(self, workshop: Any, archive: Path) -> None:
        with pytest.raises(ToolchainError, match=r"nowhere\.tar\.gz is not in the project"):
            ensure_interpreter(self.locked(archive, "nowhere.tar.gz"), workshop.uv, quiet)

    def test_no_digest(self, workshop: Any) -> None:
        wanted = dataclasses.replace(workshop.interpreter(), sha256="")
        with pytest.raises(ToolchainError, match="no sha256"):
            ensure_interpreter(wanted, workshop.uv, quiet)

    def test_system_is_found_by_digest_and_remembered(self, workshop: Any) -> None:
        said: list[str] = []
        python = ensure_interpreter(workshop.interpreter(), workshop.uv, said.append)
        assert str(python) == probe.base_interpreter()
        assert ensure_interpreter(workshop.interpreter(), workshop.uv, said.append) == python
        assert len(said) == 1

    def test_another_build_of_the_same_version(self, workshop: Any) -> None:
        wanted = dataclasses.replace(workshop.interpreter(), sha256="0" * 64)
        with pytest.raises(ToolchainError, match="of the locked build") as caught:
            ensure_interpreter(wanted, workshop.uv, quiet)
        assert probe.interpreter()["build"] in caught.value.message
        assert "saf-env lock" in caught.value.hint

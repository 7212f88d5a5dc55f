"""RECORD files and what they promise, on files made by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from saf_env import probe
from saf_env.provision import record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An environment of one package with a module, a script and their RECORD."""
    site = tmp_path / "lib" / "python3.13" / "site-packages"
    (site / "pkg" / "__pycache__").mkdir(parents=True)
    (site / "pkg-1.0.dist-info").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_text("tool")
    (tmp_path / "pyvenv.cfg").write_text("")
    (site / "pkg" / "a.py").write_text("a = 1")
    (site / "pkg" / "__pycache__" / "a.cpython-313.pyc").write_bytes(b"")
    lines = [
        f"pkg/a.py,{promise(b'a = 1')},5",
        f"../../../bin/tool,{promise(b'tool')},4",
        "pkg-1.0.dist-info/RECORD,,",
    ]
    (site / "pkg-1.0.dist-info" / "RECORD").write_text("\n".join(lines) + "\n")
    return tmp_path


def promise(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def texts(root: Path) -> list[str]:
    return [damage.text for damage in record.examine(root, {"pyvenv.cfg"}).damages]


def site(root: Path) -> Path:
    return record.site_packages(root)


def add(root: Path, line: str) -> None:
    path = site(root) / "pkg-1.0.dist-info" / "RECORD"
    path.write_text(path.read_text() + line + "\n")


def test_as_promised(root: Path) -> None:
    assert texts(root) == []
    assert record.recorded(root)["bin/tool"].package == "pkg"


def test_changed_missing_and_unknown_files_are_told_with_their_package(root: Path) -> None:
    (site(root) / "pkg" / "a.py").write_text("a = 2")
    (site(root) / "pkg" / "b.py").write_text("")
    (site(root) / "other.pth").write_text("")
    (root / "bin" / "tool").unlink()
    found = {d.text: d.package for d in record.examine(root, {"pyvenv.cfg"}).damages}
    folder = "lib/python3.13/site-packages"
    assert found == {
        "bin/tool is missing": "pkg",
        f"{folder}/other.pth is in no package": "",
        f"{folder}/pkg/a.py is not what its package's RECORD says": "pkg",
        f"{folder}/pkg/b.py is in no package": "pkg",
    }


@pytest.mark.parametrize("name", ["b.cpython-313.pyc", "a.cpython-313.opt-1.pyc", "a.pyc", "x"])
def test_bytecode_that_uv_did_not_compile(root: Path, name: str) -> None:
    (site(root) / "pkg" / "__pycache__" / name).write_bytes(b"")
    assert [text.rpartition("/")[2] for text in texts(root)] == [f"{name} is in no package"]


def test_no_digest_is_for_the_installers_own_files_only(root: Path) -> None:
    add(root, "pkg/b.py,,")
    (site(root) / "pkg" / "b.py").write_text("")
    assert texts(root)[0].endswith("pkg/b.py has no digest in its RECORD")


@pytest.mark.parametrize("path", ["../../../../outside", "/etc/passwd"])
def test_a_record_that_claims_what_is_not_its_own(root: Path, path: str) -> None:
    add(root, f"{path},{promise(b'')},0")
    assert texts(root) == [f"pkg claims a file outside of it: {path}"]


def test_a_digest_of_another_kind(root: Path) -> None:
    add(root, "pkg/a.py,md5=abc,5")
    assert "only sha256 is known" in texts(root)[0]


def test_the_manifest_holds_every_file_and_folder(root: Path) -> None:
    (root / "left").write_text("by nobody", "ascii")
    known = record.examine(root, set()).files
    folders = record.manifest(root, known)["folders"]
    assert isinstance(folders, dict)
    files = {
        f"{folder}/{name}".lstrip("/") for folder, (*_, names) in folders.items() for name in names
    }
    assert files == record.files_of(root)
    size, _, inode, sha256 = folders["bin"][2]["tool"]
    path = root / "bin" / "tool"
    assert (size, inode) == (4, path.stat().st_ino)
    assert sha256 == known["bin/tool"].sha256 == hashlib.sha256(b"tool").hexdigest()
    assert "left" not in known
    assert folders[""][2]["left"][3] == hashlib.sha256(b"by nobody").hexdigest()


def test_the_library_of_an_interpreter(tmp_path: Path) -> None:
    stdlib = tmp_path / "python3.13"
    for folder in ("json", "test", "__pycache__", "site-packages", "config-3.13-x86_64-linux-gnu"):
        (stdlib / folder).mkdir(parents=True)
        (stdlib / folder / "a.py").write_text(folder)
    (stdlib / "os.py").write_text("1")
    written = tmp_path / "manifest.json"
    written.write_text(json.dumps(record.library(stdlib)))

    def changes(*, deep: bool = False) -> dict[str, list[str]]:
        seen = probe.library(str(stdlib), str(written), deep=deep)
        assert seen["files"] == 2
        assert seen["hashed"] == (2 if deep else len(seen["changed"][1]))
        return {kind: seen[kind][1] for kind in ("changed", "missing", "foreign") if seen[kind][1]}

    assert changes() == changes(deep=True) == {}
    (stdlib / "__pycache__" / "os.cpython-313.pyc").write_text("")
    (stdlib / "site-packages" / "pip").mkdir()
    (stdlib / "test" / "a.py").write_text("changed")
    assert changes() == {}
    (stdlib / "os.py").write_text("2")
    (stdlib / "numpy.py").touch()
    (stdlib / "json" / "a.py").unlink()
    assert changes() == {"changed": ["os.py"], "missing": ["json/a.py"], "foreign": ["numpy.py"]}

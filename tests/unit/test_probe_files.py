"""What the probe says of files and folders, on some made by hand."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.provision import record


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a module, its bytecode and a program, and their manifest."""
    root = tmp_path / "env"
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("a = 1")
    (root / "pkg" / "__pycache__" / "a.pyc").write_bytes(b"")
    (root / "tool").write_text("#!/bin/sh")
    (root / "tool").chmod(0o755)
    (root / probe.MANIFEST).write_text(json.dumps(record.manifest(root, {})))
    monkeypatch.setattr(probe, "_prefix", lambda: str(root))
    return root


def found(**request: Any) -> dict[str, list[str]]:
    """The files that are changed, missing or foreign, as far as there are any."""
    seen = probe.files(request)
    kinds = {kind: seen[kind][1] for kind in ("changed", "missing", "foreign")}
    return {kind: names for kind, names in kinds.items() if names}


@pytest.mark.parametrize("deep", [True, False])
def test_as_they_were(root: Path, deep: bool) -> None:
    assert found(deep=deep) == {}
    raw = (root / probe.MANIFEST).read_bytes()
    assert probe.files({})["manifest_sha256"] == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("deep", [True, False])
def test_a_program_that_may_not_be_run_is_changed(root: Path, deep: bool) -> None:
    (root / "tool").chmod(0o644)
    assert found(deep=deep) == {"changed": ["tool"]}
    (root / "tool").chmod(0o700)
    assert found(deep=deep) == {}


def test_what_is_no_file_is_not_read(root: Path) -> None:
    (root / "tool").unlink()
    os.mkfifo(root / "tool", 0o755)
    assert found(deep=True) == {"changed": ["tool"]}


def test_what_may_be_run_now_is_not_changed(root: Path) -> None:
    (root / "pkg" / "a.py").chmod(0o755)
    assert found() == {}


def test_bytecode_may_be_missing_and_nothing_else(root: Path) -> None:
    (root / "pkg" / "__pycache__" / "a.pyc").unlink()
    assert found() == {}
    (root / "pkg" / "__pycache__").rmdir()
    assert found() == {}
    (root / "pkg" / "__pycache__").symlink_to(root)
    assert found() == {"missing": ["pkg/__pycache__"]}
    (root / "pkg" / "a.py").unlink()
    assert found() == {"missing": ["pkg/__pycache__", "pkg/a.py"]}


def test_what_the_finder_leaves_is_nobodys(root: Path) -> None:
    (root / "pkg" / ".DS_Store").touch()
    assert found() == {}
    (root / "pkg" / ".other").touch()
    assert found() == {"foreign": ["pkg/.other"]}


def test_an_environment_on_another_disk(root: Path) -> None:
    root.rename(root.with_name("disk"))
    root.symlink_to("disk")
    assert found() == {}


def test_modules_in_the_temp_dir(tmp_path: Path) -> None:
    for name in ("logs", "ray", "namespace"):
        (tmp_path / name).mkdir()
    for name in ("head.log", "random.py", "math.so", "old.pyc", "ray/__init__.py", "logs/a.py"):
        (tmp_path / name).touch()
    seen = probe.temp_dir({"temp_dir": str(tmp_path)})["modules"]
    assert seen == [str(tmp_path / n) for n in ("math.so", "old.pyc", "random.py", "ray")]
    assert probe.temp_dir({"temp_dir": str(tmp_path / "none")})["modules"] == []

"""What changed in a finished environment is seen, by the quick look and by the deep one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe

pytestmark = pytest.mark.parametrize("deep", [False, True])


@pytest.fixture
def env(workshop: Any) -> Any:
    made = workshop.plan()
    workshop.make(made)
    return made


def seen(workshop: Any, env: Any, deep: bool, kind: str) -> list[str]:
    """Names of the files that are ``changed``, ``missing`` or ``foreign``."""
    count, names = workshop.facts(env, deep=deep)["files"][kind]
    assert count == len(names)
    return sorted(Path(name).name for name in names)


def test_flipped_byte_with_size_and_time_kept(workshop: Any, env: Any, deep: bool) -> None:
    path = workshop.site(env) / "six.py"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert seen(workshop, env, deep, "changed") == ["six.py"]


def test_touched_but_equal_is_no_drift(workshop: Any, env: Any, deep: bool) -> None:
    (workshop.site(env) / "six.py").touch()
    plain = {"PATH": os.defpath}  # Python then writes the bytecode of six anew
    subprocess.run([env.python, "-c", "import six"], env=plain, check=True, timeout=60)
    subprocess.run([env.python, "-OO", "-c", "import idna"], env=plain, check=True, timeout=60)
    assert seen(workshop, env, deep, "changed") == []
    assert seen(workshop, env, deep, "foreign") == []


def test_missing_file(workshop: Any, env: Any, deep: bool) -> None:
    (workshop.site(env) / "idna" / "core.py").unlink()
    assert seen(workshop, env, deep, "missing") == ["core.py"]


def test_edited_record(workshop: Any, env: Any, deep: bool) -> None:
    path = next(workshop.site(env).glob("six-*/RECORD"))
    path.write_text(path.read_text().replace("sha256=", "sha256=A", 1))
    assert seen(workshop, env, deep, "changed") == ["RECORD"]


def test_file_of_nobody(workshop: Any, env: Any, deep: bool) -> None:
    site = workshop.site(env)
    (site / "idna" / "extra.py").write_text("")
    (site / "later.pth").write_text("")
    (env.path / "bin" / "tool").write_text("")
    assert seen(workshop, env, deep, "foreign") == ["extra.py", "later.pth", "tool"]
    startup = workshop.facts(env)["isolation"]["startup"]
    assert [Path(path).name for path in startup] == ["later.pth"]


def test_bytecode_that_its_source_does_not_give(workshop: Any, env: Any, deep: bool) -> None:
    good, bad = (
        Path(importlib.util.cache_from_source(str(workshop.site(env) / name)))
        for name in ("idna/core.py", "six.py")
    )
    bad.write_bytes(good.read_bytes())
    assert seen(workshop, env, deep, "changed") == [bad.name]


def test_interpreter_link_moved(workshop: Any, env: Any, deep: bool) -> None:
    python = env.path / "bin" / "python3"
    python.unlink()
    python.symlink_to(env.python.resolve())
    assert seen(workshop, env, deep, "changed") == ["python3"]


def test_edited_manifest(workshop: Any, env: Any, deep: bool) -> None:
    path = env.path / probe.MANIFEST
    path.write_text(path.read_text().replace('"six.py"', '"sev.py"'))
    found = workshop.facts(env, deep=deep)
    marker = found["environment"]["marker"]
    assert marker["manifest_sha256"] != found["files"]["manifest_sha256"]


def test_extra_package(workshop: Any, env: Any, deep: bool) -> None:
    (workshop.site(env) / "Other_Thing-1.0.dist-info").mkdir()
    found = workshop.facts(env, deep=deep)
    assert ["other-thing", "1.0"] in found["packages"]
    assert found["files"]["foreign"][0] == 1

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from saf_env.errors import ToolchainError, UsageError
from saf_env.lock.downloads import Build, from_table, mirrored, newest

MAC, BOX = "macos-arm64", "linux-x86_64"


def build(version: str, platform: str = MAC, sha256: str | None = "ab" * 32) -> Build:
    return Build(platform, version, "20260814", f"https://x.test/{version}.tar.gz", sha256)


def table(path: Path, *builds: Build, **changes: Any) -> Path:
    rows = {key: {**row, **changes} for key, row in (b.row() for b in builds)}
    path.write_text(json.dumps(rows))
    return path


def test_a_row_is_read_as_it_is_written(tmp_path: Path) -> None:
    builds = [build("3.13.7"), build("3.13.7", BOX)]
    assert from_table(table(tmp_path / "t.json", *builds), [MAC, BOX]) == builds
    assert from_table(tmp_path / "t.json", [BOX]) == builds[1:]


@pytest.mark.parametrize(
    "changes",
    [{"prerelease": "rc1"}, {"variant": "freethreaded"}, {"variant": "debug"}, {"name": "pypy"}],
)
def test_only_plain_releases(tmp_path: Path, changes: dict[str, str]) -> None:
    assert from_table(table(tmp_path / "t.json", build("3.14.0"), **changes), [MAC]) == []


@pytest.mark.parametrize("sha256", [None, "", "1234", "AB" * 32])
def test_a_row_without_a_digest_is_no_candidate(tmp_path: Path, sha256: str | None) -> None:
    good, bad = build("3.13.6"), build("3.13.7", sha256=sha256)
    assert from_table(table(tmp_path / "t.json", good, bad), [MAC]) == [good]
    with pytest.raises(ToolchainError, match="has a sha256"):
        from_table(table(tmp_path / "t.json", bad), [MAC])


def test_a_row_that_lacks_the_digests_key(tmp_path: Path) -> None:
    key, row = build("3.13.7").row()
    del row["sha256"]
    (tmp_path / "t.json").write_text(json.dumps({key: row}))
    with pytest.raises(ToolchainError, match="has a sha256"):
        from_table(tmp_path / "t.json", [MAC])


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {}}', "[" * 100_000, "\0"])
def test_what_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UsageError, match="no table of interpreters"):
        from_table(tmp_path / "t.json", [MAC])


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        from_table(tmp_path / "t.json", [MAC])


def test_a_row_under_another_versions_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        from_table(table(tmp_path / "t.json", build("3.13.7"), patch=8), [MAC])


@pytest.mark.parametrize(
    ("wanted", "prefer", "version"),
    [
        ("==3.13.*", "", "3.13.10"),
        ("==3.13.*", "3.13.9", "3.13.9"),
        ("==3.13.*", "3.12.1", "3.13.10"),
        (">=3.12,<3.14", "3.12.1", "3.12.1"),
        (">=3.10", "", "3.14.0"),
        ("==3.11.*", "", None),
    ],
)
def test_the_newest_or_the_one_to_keep(wanted: str, prefer: str, version: str | None) -> None:
    builds = [build(v) for v in ("3.12.1", "3.13.9", "3.13.10", "3.14.0")]
    found = newest(builds, SpecifierSet(wanted), [MAC], prefer)
    assert {b.version for b in found.values()} == ({version} if version else set())


def test_every_platform_must_have_the_version() -> None:
    builds = [build("3.13.7"), build("3.13.7", BOX), build("3.13.8")]
    found = newest(builds, SpecifierSet("==3.13.*"), [MAC, BOX], "3.13.8")
    assert {name: b.version for name, b in found.items()} == {MAC: "3.13.7", BOX: "3.13.7"}


def test_the_mirror_replaces_the_releases_address() -> None:
    url = "https://a.test/x/releases/download/20260814/cpython-3.13.7%2B1.tar.gz"
    mirror = {"UV_PYTHON_INSTALL_MIRROR": "https://mirror.test/py/"}
    assert mirrored(url, {}) == url
    assert mirrored(url, mirror) == "https://mirror.test/py/20260814/cpython-3.13.7%2B1.tar.gz"
    assert mirrored("https://a.test/other.tar.gz", mirror) == "https://a.test/other.tar.gz"

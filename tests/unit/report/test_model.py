"""Reading a report from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.errors import UsageError
from saf_env.report.model import read

SMALLEST = (
    '{"schema": 1, "run": "r", "cluster": "c", "started": "s", "seconds": 1, "verdict": "ok",'
    ' "nodes": [], "findings": [], "outcomes": [], "environment": {}}'
)


def test_read(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(SMALLEST, "utf-8")
    assert read(tmp_path / "report.json").cluster == "c"


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"{", SMALLEST.encode()[:-9], b"[" * 100_000, b"3"]
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(UsageError, match="is not a report of saf-env, or it is damaged"):
        read(tmp_path / "report.json")


def test_missing_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "report.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read(path)


def test_newer(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(SMALLEST.replace("1", "9", 1), "utf-8")
    with pytest.raises(UsageError, match="schema 9"):
        read(tmp_path / "report.json")

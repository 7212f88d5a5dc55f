"""The tar that a host is sent, and what it takes of it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from saf_env.errors import ToolchainError
from saf_env.provision import there
from saf_env.provision.failures import OFFLINE

LONG = f"{'package_' * 20}-1.0-py3-none-any.whl"


def wheels(folder: Path) -> dict[str, Path]:
    """Two of them, by digest: one larger than what is read at once, one with a long name."""
    folder.mkdir()
    found = {}
    for name, data in (("a-1-py3-none-any.whl", b"0123456789" * 200_000), (LONG, b"x" * 513)):
        (folder / name).write_bytes(data)
        found[hashlib.sha256(data).hexdigest()] = folder / name
    return found


def answer(data: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        return there._answer(archive)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked to be made."""
    seen: list[dict[str, Any]] = []

    def make(value: dict[str, Any]) -> dict[str, Any]:
        seen.append(value)
        return {"made": True}

    monkeypatch.setattr(there, "make", make)
    return seen


def test_wheels_arrive_before_anything_is_made(tmp_path: Path, asked: list[Any]) -> None:
    wish, sent = {"home": str(tmp_path / "h"), "host": "beta"}, wheels(tmp_path / "w")
    assert answer(b"".join(there.tar(wish, sent, "beta"))) == {"made": True}
    assert asked == [wish]
    folder = there.wheels_of(tmp_path / "h")
    assert sorted(folder.iterdir()) == sorted(folder / wheel.name for wheel in sent.values())
    assert all((folder / w.name).read_bytes() == w.read_bytes() for w in sent.values())


def test_without_wheels_there_is_only_the_request(tmp_path: Path, asked: list[Any]) -> None:
    wish = {"home": str(tmp_path / "h"), "host": "beta"}
    answer(b"".join(there.tar(wish, {}, "beta")))
    assert asked == [wish]
    assert not (tmp_path / "h").exists()


def test_a_wheel_that_is_not_what_was_meant_is_not_taken(tmp_path: Path, asked: list[Any]) -> None:
    wish, sent = {"home": str(tmp_path / "h"), "host": "beta"}, wheels(tmp_path / "w")
    data = b"".join(there.tar(wish, sent, "beta")).replace(b"x" * 513, b"x" * 512 + b"y")
    said = answer(data)
    assert said["error"] == f"beta: {LONG} is not what was sent"
    assert "run the command again" in said["hint"]
    assert asked == []
    assert [p.name for p in there.wheels_of(tmp_path / "h").iterdir()] == ["a-1-py3-none-any.whl"]


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    there.take([(f"{digest}/../../x.whl", [b"x"])], tmp_path / "a" / "b", "beta")
    assert (tmp_path / "a" / "b" / "x.whl").read_bytes() == b"x"


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolchainError, match="cannot write in"):
        there.take([("0/x.whl", [b"x"])], tmp_path / "file", "beta")


def test_who_reaches_no_index_tells_what_it_has(
    tmp_path: Path, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise ToolchainError("no way", hint=OFFLINE)

    monkeypatch.setattr(there, "ensure_environment", make)
    env = plan.nodes[0].environment
    wish = there.request([env], None, "beta", tmp_path, Path("uv"), {}, False)
    assert there.make(wish) == {"error": "no way", "hint": OFFLINE, "wheels": []}
    digest = hashlib.sha256(b"x").hexdigest()
    there.take([(f"{digest}/x.whl", [b"x"])], there.wheels_of(tmp_path), "beta")
    assert there.make(wish)["wheels"] == [digest]

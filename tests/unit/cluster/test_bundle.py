"""The archive for who is asked for help: whole, private, and without a secret."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.cluster import bundle
from saf_env.cluster.bundle import HIDDEN, hidden, secrets_of
from saf_env.cluster.runtimes import LogText
from saf_env.errors import HostUnreachableError, UsageError

TOKEN = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:p@ss@index.example/", f"https://{HIDDEN}@index.example/"),
        (f"joined with {TOKEN}.", f"joined with {HIDDEN}."),
        ("https://me:p%40ss@index.example/simple", f"https://{HIDDEN}@index.example/simple"),
        ("git+ssh://git@host/x", f"git+ssh://{HIDDEN}@host/x"),
        ("tcp://10.0.0.1:6380 and a@b", "tcp://10.0.0.1:6380 and a@b"),
    ],
)
def test_secrets_are_hidden(text: str, told: str) -> None:
    assert hidden(text, [TOKEN]) == told


def test_a_secret_is_hidden_however_it_is_written() -> None:
    secret = 'p"ä ss'
    for text in (json.dumps({"x": secret}), "http://x/?p%22%C3%A4%20ss", secret):
        assert "ss" not in hidden(text, [secret])


@given(st.text(), st.text())
def test_no_secret_is_left_whatever_is_around_it(before: str, after: str) -> None:
    assert TOKEN not in hidden(before + TOKEN + after, [TOKEN])


def test_what_is_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    environ = {
        "UV_INDEX_OURS_PASSWORD": "longer",
        "RAY_AUTH_TOKEN": "other token",
        "PATH": "/bin",
        "SHORT_TOKEN": "ab",
    }
    files = [tmp_path / "token", tmp_path / "missing"]
    assert secrets_of(files, environ) == [TOKEN, "other token", "longer"]


def lost() -> Any:
    raise HostUnreachableError("beta: it is gone")


def test_all_of_it_is_in_one_archive(tmp_path: Path) -> None:
    target, file = tmp_path / "help.tar.gz", tmp_path / "cluster.toml"
    file.write_text(f"# {TOKEN}")
    logs = [LogText("head", "raylet.out", f"said {TOKEN}\n\udcff")]
    values = {"versions": bundle.versions, "plan": lambda: {"token": TOKEN}, "facts": lost}
    files = {"cluster.toml": file, "lockfiles/x": tmp_path / "missing"}
    bundle.write(target, logs, values, files, ["no logs: gamma: silent"], [TOKEN])
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cluster.toml", "help.tar.gz"]
    found = {}
    with tarfile.open(target) as archive:
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None
            found[member.name.removeprefix("help/")] = data.read().decode()
    assert found.keys() == {
        "logs/head/raylet.out",
        "versions.json",
        "plan.json",
        "cluster.toml",
        "missing.txt",
    }
    assert TOKEN not in "".join(found.values())
    assert json.loads(found["plan.json"]) == {"token": HIDDEN}
    assert found["logs/head/raylet.out"] == f"said {HIDDEN}\n?"
    assert "facts.json: beta: it is gone" in found["missing.txt"]
    assert "no logs: gamma: silent" in found["missing.txt"]
    assert "lockfiles/x: " in found["missing.txt"]


def test_nothing_is_replaced_and_nothing_half_is_left(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    below = tmp_path / "there" / "x.tar.gz"
    for target in (tmp_path / "there", tmp_path / "no folder" / "x.tar.gz", below, Path(".")):
        with pytest.raises(UsageError, match="cannot write"):
            bundle.refuse(target)
    with pytest.raises(UsageError, match="cannot write"):
        bundle.write(below, [], {}, {}, [], [])
    assert (tmp_path / "there").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["there"]

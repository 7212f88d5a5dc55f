"""The state file: what is written comes back, and nothing damaged is believed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saf_env.cluster.state import (
    ClusterState,
    StartedNode,
    folder,
    held,
    read,
    write,
)
from saf_env.errors import BusyError, UsageError
from saf_env.provision.folders import write_atomically
from saf_env.runtimes.base import Started

HEAD = Started("head", "abc.1", 100, "2000")
WORKER = Started("linux", "def.2", 200, "2001")


def state() -> ClusterState:
    return ClusterState().with_started(HEAD).with_started(WORKER).with_attested(["head"])


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path, "local", state())

    assert read(tmp_path, "local") == state()
    path = folder(tmp_path, "local") / "state.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["state.json"]


def test_an_empty_state_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, "local", state())
    write(tmp_path, "local", state().without(["head", "linux"]))

    assert list(folder(tmp_path, "local").iterdir()) == []
    assert read(tmp_path, "local") == ClusterState()


def test_only_the_very_start_is_attested() -> None:
    assert state().is_attested("head", "abc.1")
    assert not state().is_attested("head", "abc.2")
    assert not state().is_attested("linux", "def.2")
    assert not state().is_attested("none", "")


def test_a_node_started_anew_has_proven_nothing() -> None:
    again = state().with_started(Started("head", "abc.3", 101, "2002"))

    assert again.nodes["head"] == StartedNode(Started("head", "abc.3", 101, "2002"), False)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"hosts": {"here": {}}},
        {"cluster": "other"},
        {"nodes": []},
        {"nodes": {"head": None}},
        {"nodes": {"head": {"started": {"pid": "x"}, "attested": True}}},
    ],
)
def test_a_state_that_is_not_ours_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, "local", state())
    path = folder(tmp_path, "local") / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    assert read(tmp_path, "local") == ClusterState()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_rubbish_is_no_state(tmp_path: Path, data: bytes) -> None:
    path = folder(tmp_path, "local") / "state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

    assert read(tmp_path, "local") == ClusterState()


@given(cut=st.integers(0, 200))
def test_half_a_state_is_none(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    home = tmp_path_factory.getbasetemp()
    write(home, "local", state())
    path = folder(home, "local") / "state.json"
    path.write_bytes(path.read_bytes()[:cut])

    assert read(home, "local") == ClusterState()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"cannot write .*: "):
        write_atomically(tmp_path / "file" / "state.json", "{}")


def test_a_cluster_is_held_by_one(tmp_path: Path) -> None:
    with (
        held(tmp_path, "local", "saf-env up"),
        pytest.raises(BusyError, match=r"cluster local: saf-env up, pid \d+"),
        held(tmp_path, "local", "saf-env down"),
    ):
        pass
    with held(tmp_path, "local", "saf-env down"), held(tmp_path, "other", "saf-env up"):
        pass


def test_an_error_frees_the_cluster(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(tmp_path, "local", "saf-env up"):
        raise KeyboardInterrupt
    with held(tmp_path, "local", "saf-env up"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / ".saf").write_text("")

    with (
        pytest.raises(UsageError, match="cannot write in"),
        held(tmp_path, "local", "saf-env up"),
    ):
        pass

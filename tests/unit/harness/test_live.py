"""The live file, and choosing nodes from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saf_env.errors import UsageError
from saf_env.harness.cluster import wanted
from saf_env.harness.live import Node, load

HEAD = {
    "name": "head",
    "host": "here",
    "kind": "native",
    "role": "head",
    "platform": "linux-x86_64",
    "groups": ["mlx"],
    "cpus": 1,
    "fingerprint": "f00d",
    "node_id": "abc",
}
WORKER = {
    **HEAD,
    "name": "linux",
    "role": "worker",
    "groups": [],
    "cpus": None,
    "kind": "container",
}
LIVE: dict[str, Any] = {
    "schema": 1,
    "cluster": "local",
    "address": "127.0.0.2:6380",
    "node_ip": "127.0.0.2",
    "head": "head",
    "nodes": [HEAD, WORKER],
}
NODES = (
    Node("head", "here", "native", "head", "linux-x86_64", ("mlx",), 1, "f00d", "abc"),
    Node("linux", "here", "container", "worker", "linux-x86_64", (), None, "f00d", "abc"),
)


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "live.json"
    path.write_text(json.dumps({**LIVE, "later": True}), "utf-8")
    live = load(path)
    assert live.nodes == NODES
    assert (live.cluster, live.address, live.node_ip) == ("local", "127.0.0.2:6380", "127.0.0.2")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"schema": 2}', json.dumps({**LIVE, "nodes": [{"name": "a"}]})],
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "live.json"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=r"live\.json") as caught:
        load(path)
    assert "saf-env up" in caught.value.hint


def test_missing_and_binary(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "live.json")
    (tmp_path / "live.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a live file"):
        load(tmp_path / "live.json")


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ({}, ["head", "linux"]),
        ({"group": "mlx"}, ["head"]),
        ({"kind": "container"}, ["linux"]),
        ({"role": "worker", "platform": "linux-x86_64"}, ["linux"]),
        ({"role": "worker", "group": "mlx"}, []),
    ],
)
def test_nodes_are_chosen_by_what_they_are(conditions: dict[str, str], names: list[str]) -> None:
    assert [n.name for n in wanted(NODES, conditions)] == names


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        wanted(NODES, {"groups": "mlx"})

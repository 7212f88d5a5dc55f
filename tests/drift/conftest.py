"""A healthy node for the tests of drift: locked and provisioned once, nothing of it running."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.drift.node import CLUSTER, Change, Seen
from tests.projects import Project


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Change]:
    """The node, not changed; no variable of the caller bears on it."""
    home = tmp_path_factory.mktemp("drift") / "a b é"
    home.mkdir()
    project = Project(home, {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}, "drift")
    project.file.write_text(CLUSTER, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("RAY_", "PYTHON"))]:
            patch.delenv(name)
        for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
            patch.delenv(name)
        project.ok("lock")
        project.ok("check", "--fix", timeout=600)
        head, worker = (Path(node["environment"]["path"]) for node in project.plan()["nodes"])
        temp = Path("/tmp", project.cluster_id)
        yield Change(project, head, worker, temp, home.parent / "aside")
        project.remove()


@pytest.fixture(scope="session")
def healthy(node: Change) -> Mapping[bool, Seen]:
    """What is said before any change: of the head alone (True), and of both nodes.

    It depends on the machine, as on its limits.
    """
    both = Change(node.project, node.env, node.other, node.temp, node.aside, arguments=[])
    found = {True: node.look(), False: both.look()}
    assert all(seen.code == 0 for seen in found.values()), found
    return found


@pytest.fixture
def change(node: Change) -> Iterator[Change]:
    """The node, to be changed; everything is undone afterwards."""
    shutil.rmtree(node.aside, ignore_errors=True)
    node.aside.mkdir()
    fresh = Change(node.project, node.env, node.other, node.temp, node.aside)
    with fresh.undo:
        yield fresh

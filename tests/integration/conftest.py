"""Clusters for tests of the real thing, see :mod:`tests.projects`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.projects import Project, cluster_file


@pytest.fixture(scope="session")
def main_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that is locked and provisioned, in a folder with a blank and an accent.

    No Docker engine answers, so its container node falls back; others are in tests/hosts.
    """
    home = tmp_path_factory.mktemp("project") / "a b é"
    home.mkdir()
    (home / "cluster.toml").write_text(cluster_file(21000), encoding="utf-8")
    project = Project(home, {"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    yield project
    project.remove()


@dataclass(frozen=True)
class LiveCluster:
    """A cluster that is up, as the harness's tests need it."""

    home: Path
    live_file: Path
    driver_python: Path
    env: Mapping[str, str]


@pytest.fixture
def running_project(main_project: Project) -> Project:
    """The project, its cluster up."""
    main_project.ok("up", timeout=600)
    return main_project


@pytest.fixture
def live_cluster(running_project: Project) -> LiveCluster:
    """The running cluster, as ``saf-env test`` hands it to the suite."""
    live = running_project.home / ".saf" / "clusters" / "local" / "live.json"
    if not live.exists():
        running_project.ok("test", "--quick", "pi", "head")
    plan = json.loads(running_project.ok("plan", "--json"))
    return LiveCluster(
        home=running_project.home,
        live_file=live,
        driver_python=Path(plan["driver"]["path"]) / "bin" / "python",
        env={**plan["nodes"][0]["variables"], "PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]},
    )


@pytest.fixture(scope="module")
def faulty(main_project: Project) -> Iterator[Project]:
    """A cluster of its own in the main project, which has the environments as a rule."""
    main_project.ok("down")
    project = main_project.beside("faulty", 21400)
    yield project
    project.remove()


@pytest.fixture
def up(faulty: Project) -> Project:
    """The cluster, all of it ready."""
    faulty.ok("up")
    return faulty


@pytest.fixture
def down(faulty: Project) -> Project:
    """The cluster, nothing of it running."""
    faulty.ok("down")
    return faulty

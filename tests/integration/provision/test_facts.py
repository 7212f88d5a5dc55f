"""Facts of a node whose environment is there, is not there, or does not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.plan.model import ClusterPlan, HostPlan, NodePlan, Ports
from saf_env.platforms import this_platform
from saf_env.provision.facts import gather_facts
from saf_env.transports.local import LocalTransport

OF_ENVIRONMENT = {
    *("interpreter", "environment", "packages", "ray_build", "isolation", "files", "python_files"),
}


@pytest.fixture
def plan(workshop: Any, tmp_path: Path) -> ClusterPlan:
    here, environment = this_platform(), workshop.plan()
    assert here is not None
    node = NodePlan(
        name="head",
        host="here",
        kind="native",
        fallback_reason="",
        role="head",
        platform=here.name,
        groups=(),
        address=here.loopback,
        advertise=here.loopback,
        network="host",
        ports=Ports(23004, 23005, 23006, 23007, 23008, 23009, 23012, 23014, gcs=23000),
        cpus=1,
        gpus=None,
        memory=None,
        object_store_memory=None,
        resources={},
        labels={},
        variables={},
        environment=environment,
        image=None,
        fingerprint="",
        temp_dir=tmp_path / "saf-1" / "0",
    )
    folder = tmp_path / "saf-1"
    host = HostPlan(node.host, node.address, node.platform, "", None, workshop.home)
    hosts = {node.host: host}
    return ClusterPlan("local", workshop.home, folder, "x:1", "", hosts, (node,), {}, environment)


def look(plan: ClusterPlan, workshop: Any) -> dict[str, Any]:
    user = {"RAY_AUTH_TOKEN": "s3cret", "HOME": "/root"}
    return gather_facts(plan.head, plan, LocalTransport(), user, uv=workshop.uv.binary)


def test_without_its_environment_the_machine_is_still_looked_at(
    plan: ClusterPlan, workshop: Any
) -> None:
    found = look(plan, workshop)
    assert found["unknown"].keys() == OF_ENVIRONMENT
    assert "No such file" in found["unknown"]["packages"]
    assert found["facts"].keys() == (probe.FACTS.keys() | {"clock"}) - OF_ENVIRONMENT
    assert found["user_variables"] == {"RAY_AUTH_TOKEN": None}


def test_with_its_environment_all_is_known(plan: ClusterPlan, workshop: Any) -> None:
    workshop.make(plan.head.environment)
    found = look(plan, workshop)
    assert found["unknown"] == {}
    assert found["facts"].keys() == probe.FACTS.keys() | {"clock"}
    assert found["facts"]["environment"]["path"] == str(plan.head.environment.path)
    assert found["facts"]["files"]["hashed"] == 0


def test_with_an_interpreter_that_does_not_run(plan: ClusterPlan, workshop: Any) -> None:
    workshop.make(plan.head.environment)
    python = plan.head.environment.python
    python.unlink()
    python.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    python.chmod(0o755)
    found = look(plan, workshop)
    assert found["unknown"].keys() == OF_ENVIRONMENT
    assert "it is broken" in found["unknown"]["interpreter"]

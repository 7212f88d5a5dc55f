"""A bare host without a way to the outside gets an interpreter that has an address."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from saf_env.errors import ToolchainError
from saf_env.plan.model import HostPlan
from saf_env.provision.context import packed
from saf_env.provision.pack import sha256
from saf_env.provision.remote import Provisioner
from saf_env.transports.ssh import SshTransport
from saf_env.uv import pinned_version
from tests.hosts.conftest import Yard as Images
from tests.hosts.conftest import served
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.yard import Yard
from tests.hosts.several import ROOTS

HOME = PurePosixPath(f"{ROOTS}/.saf-env/offline")


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Machine:
    return machine_yard.machine("beta")


def test_a_managed_interpreter_is_sent_to_where_it_cannot_be_fetched(
    yard: Images, machine_yard: Yard, beta: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told: list[str] = []
    uv = replace(yard.uv(), home=tmp_path_factory.mktemp("offline"))
    system = yard.plan().environment.interpreter
    archive = packed(system, uv, told.append)
    sockets = tmp_path_factory.mktemp("s")
    sockets.chmod(0o700)
    config = machine_yard.ssh_config()
    way = SshTransport("beta", "beta", folder=sockets, environ=os.environ, config=config)
    plan = HostPlan("beta", beta.address, system.platform, "beta", None, Path(HOME))
    provisioner = Provisioner(plan, HOME, way, uv, told.append)
    with served(archive.parent) as address:
        managed = replace(
            system,
            source="managed",
            build="20260101",
            url=f"{address}{archive.name}",
            sha256=sha256(archive),
        )
        with pytest.raises(ToolchainError):
            provisioner.make(replace(managed, sha256="0" * 64), pinned_version(), [])
        provisioner.make(managed, pinned_version(), [])
    python = f"{HOME}/.saf/python/agent"
    said = beta.run([python, "-c", "import platform, ssl; print(platform.python_version())"])
    assert said.stdout == f"{system.version}\n"
    assert any("sending it the interpreter" in line for line in told), told
    told.clear()
    provisioner.make(managed, pinned_version(), [])
    assert told == [], "what is there is not sent again"
    way.close()

"""A node that comes back after a reboot of its host, by a real systemd user manager there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan, NodePlan, Ports
from saf_env.runtimes.services import Service, unit
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard
from tests.hosts.managers import BUS, ctl, forget_manager, manager, raylets, reboot, units
from tests.hosts.several import HEAD, ROOTS, Several, refused
from tests.projects import eventually

FILE = """
[hosts.alpha]
address = "{alpha}"
platform = "linux-x86_64"
[hosts.beta]
address = "{beta}"
platform = "linux-x86_64"
ssh = "beta"

[[nodes]]
name = "alpha-head"
host = "alpha"
kind = "native"
role = "head"
cpus = 1
[[nodes]]
name = "beta"
host = "beta"
kind = "native"
cpus = 1
object_store_memory = "200MiB"
"""
UNIT = f"{ROOTS}/.config/systemd/user/saf-env-served-beta.service"
PLACE = f"{ROOTS}/.saf-env/served/.saf/clusters/served/services/beta"


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Iterator[Machine]:
    made = machine_yard.machine("beta", shm="2g")
    yield made
    forget_manager(made)


@pytest.fixture(scope="module")
def project(
    machine_yard: Yard, beta: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    alpha = machine_yard.network.gateway
    made = Several(tmp_path_factory.mktemp("served"), name="served", head=alpha, port=29500)
    text = HEAD.format(name="served", port=made.port)
    made.file.write_text(text + FILE.format(alpha=alpha, beta=beta.address), encoding="utf-8")
    with installed(machine_yard.ssh_config(Entry(beta))):
        made.ok("lock")
        made.ok("up", timeout=900)
        yield made
        made.remove()


def service(project: Several) -> str:
    (one,) = json.loads(project.ok("service", "status", "beta", "--json"))["services"]
    return one["state"]


def launcher(beta: Machine) -> int:
    """The launcher that BETA's manager has started last; 0 before the first has begun."""
    found = beta.run(["cat", f"{PLACE}/running.json"], check=False).stdout
    return int(json.loads(found)["pid"]) if found else 0


def test_a_host_without_a_manager_is_told(project: Several, beta: Machine) -> None:
    refused(project.saf_env("service", "install", "beta"), 6, "no systemd user manager", "beta")
    assert beta.run(["test", "-e", UNIT], check=False).returncode == 1
    assert service(project) == "absent"


def test_what_runs_is_watched_and_started_again(project: Several, beta: Machine) -> None:
    manager(beta, after=3)  # as one of a user who has just begun to linger
    (before,) = raylets(beta)
    assert "a reboot brings back: beta" in project.ok("service", "install", "beta")
    eventually(lambda: launcher(beta), 30, "it watches")
    assert service(project) == "active"
    first = launcher(beta)
    project.ok("service", "install", "beta")
    eventually(lambda: launcher(beta) != first, 60, "another one watches")
    assert raylets(beta) == [before], "what runs is left alone"
    said = beta.run(["systemd-analyze", "verify", "--user", UNIT], env=BUS)
    assert (said.stdout, said.stderr) == ("", "")
    os.kill(before, 9)
    eventually(lambda: raylets(beta) not in ([], [before]), 90, "it is started again")


def test_a_node_comes_back_after_a_reboot_and_up_takes_it_over(
    project: Several, beta: Machine
) -> None:
    reboot(beta)
    eventually(lambda: raylets(beta), 60, "the node is started")
    (before,) = raylets(beta)
    eventually(lambda: project.status()["beta"] == "starting", 60, "the head knows it")
    assert "started beta" not in project.ok("up")
    assert project.status()["beta"] == "ready"
    assert raylets(beta) == [before]
    assert "beta service.log: " in project.ok("logs", "beta")


def test_down_is_not_undone_before_the_next_boot(project: Several, beta: Machine) -> None:
    said = project.ok("down", "beta")
    assert "stopped: beta" in said
    assert "stopped the service of beta too" in said
    assert raylets(beta) == []
    assert service(project) == "inactive"
    project.ok("up")
    assert service(project) == "active", "what up starts is watched again"


def test_who_waits_for_the_head_goes_on_with_another_plan(project: Several, beta: Machine) -> None:
    project.ok("down", "alpha-head")
    reboot(beta)
    eventually(lambda: "waiting: no head" in project.ok("logs", "beta"), 60, "it waits")
    first = launcher(beta)
    text = project.file.read_text(encoding="utf-8")
    project.file.write_text(text.replace("200MiB", "201MiB"), encoding="utf-8")
    project.ok("lock")
    assert service(project) == "outdated"
    project.ok("service", "install", "beta")
    eventually(lambda: launcher(beta) != first, 60, "another one waits")
    assert service(project) == "active"
    assert raylets(beta) == []
    project.ok("up", "alpha-head")
    eventually(lambda: raylets(beta), 60, "it has started the node")
    (before,) = raylets(beta)
    project.ok("up")
    assert raylets(beta) == [before], "it is the one that is planned"


def test_a_node_that_drifted_is_not_brought_back(project: Several, beta: Machine) -> None:
    folder = f"{ROOTS}/.saf-env/served/.saf/envs"
    file = f"{folder}/base-*/lib/python3*/site-packages/ray/__init__.py"
    beta.run(["sh", "-c", f"sed -i '$a # edited' {file}"])
    reboot(beta)
    eventually(lambda: service(project) == "failed", 60, "it has given up")
    assert raylets(beta) == []
    assert "packages-intact" in project.ok("logs", "beta")
    beta.run(["sh", "-c", f"sed -i '$d' {file}"])
    project.ok("up")
    assert service(project) == "active"


def test_a_node_outlives_its_service(project: Several, beta: Machine) -> None:
    before = raylets(beta)
    assert before
    assert "removed the service of beta" in project.ok("service", "remove", "beta")
    assert raylets(beta) == before
    assert service(project) == "absent"
    assert "saf-env" not in ctl(beta, "list-units", "--all", "--plain")
    assert units(beta) == ""


def test_systemd_reads_every_path_as_it_was_meant(beta: Machine, project: Several) -> None:
    folder = Path(ROOTS, "a b%h$HOME${HOME}\"'\\x20é;#")
    script = '#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n'
    beta.put(f"{folder}/python", script, mode=0o755)
    made = dataclasses.replace(named("odd"), folder=folder, python=folder / "python")
    beta.put(f"{ROOTS}/.config/systemd/user/odd.service", unit(made))
    ctl(beta, "daemon-reload")
    ctl(beta, "start", "odd")
    eventually(lambda: beta.read(str(made.log)).count("\n") == 5, 10, "it has said its words")
    assert beta.read(str(made.log)).splitlines() == list(made.command)


def test_a_purge_that_does_not_come_to_its_end_leaves_no_service(
    project: Several, beta: Machine
) -> None:
    project.ok("service", "install", "beta")
    assert units(beta)
    kept = f"{ROOTS}/.saf-env/served/.saf/kept"
    beta.run(["mkdir", kept])
    with beta.small_disk(kept):
        refused(project.saf_env("down", "--purge"), 6, "beta: not all of", "can be removed")
        assert units(beta) == ""
    project.ok("down", "--purge")
    assert beta.run(["find", ROOTS, "-name", "*saf-env*"]).stdout == ""


def named(node: str) -> Service:
    """A service, for what is rendered of it."""
    interpreter = Interpreter("linux-x86_64", "3.12.1", "system", "", "", "")
    lock = EnvironmentLock("base", (), "", "")
    env = EnvironmentPlan("base", lock, interpreter, {}, Path("/env"), "")
    plan = NodePlan(
        name=node,
        host="beta",
        kind="native",
        fallback_reason="",
        role="worker",
        platform="linux-x86_64",
        groups=(),
        address="",
        advertise="",
        network="host",
        ports=Ports(*range(8)),
        cpus=None,
        gpus=None,
        memory=None,
        object_store_memory=None,
        resources={},
        labels={},
        variables={},
        environment=env,
        image=None,
        fingerprint="",
        temp_dir=Path("/tmp"),
    )
    return Service("odd", "beta", "a:1", "", Path(), Path(), Path(), Path(), plan)

"""A node that comes back after a reboot of its host, by a real systemd user manager there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan, NodePlan, Ports
from saf_env.runtimes.services import Service, unit
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard
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
BUS = {"XDG_RUNTIME_DIR": "/run/user/0"}

# What systemd-logind does for a user who lingers; in a control group that is the manager's own.
MANAGER = r"""
mkdir -p /run/systemd/system /run/user/0 /var/lib/systemd/linger
chmod 700 /run/user/0
touch /var/lib/systemd/linger/root
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
umount /sys/fs/cgroup
setsid unshare --cgroup sh -c '
    mount -t cgroup2 none /sys/fs/cgroup && exec /lib/systemd/systemd --user
' >/var/log/manager.log 2>&1 </dev/null &
"""


def manager(machine: Machine) -> None:
    """Let root's service manager of a machine run, as it does after every boot."""
    group = f"{machine.network.name}-{machine.name}"
    machine.run(["sh", "-eu", "-c", MANAGER, "sh", group], env=BUS)
    eventually(lambda: ctl(machine, "show", "--property=Version"), 20, "its manager runs")


def ctl(machine: Machine, *words: str) -> str:
    """What the manager of a machine says; nothing while it is not there."""
    done = machine.run(["systemctl", "--user", *words], env=BUS, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def units(machine: Machine) -> str:
    """What the manager of a machine has of services of nodes."""
    return machine.run(["find", f"{ROOTS}/.config", "-name", "saf-env*"]).stdout


def reboot(machine: Machine) -> None:
    machine.kill_all()
    machine.boot()
    manager(machine)


def raylets(machine: Machine) -> list[int]:
    return [p.pid for p in machine.processes() if p.argv[0].endswith("/raylet")]


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Iterator[Machine]:
    made = machine_yard.machine("beta", shm="2g")
    yield made
    made.kill_all()
    group = f"{made.network.name}-{made.name}"
    for folder in Path("/sys/fs/cgroup").glob(f"**/{group}"):
        subprocess.run(["find", folder, "-depth", "-type", "d", "-delete"], check=True)


@pytest.fixture(scope="module")
def project(
    machine_yard: Yard, beta: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    alpha = machine_yard.network.gateway
    made = Several(tmp_path_factory.mktemp("served"), name="served", head=alpha, port=33000)
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


def test_a_host_without_a_manager_is_told(project: Several, beta: Machine) -> None:
    refused(project.saf_env("service", "install", "beta"), 6, "no systemd user manager", "beta")
    assert beta.run(["test", "-e", UNIT], check=False).returncode == 1
    assert service(project) == "absent"


def test_what_runs_is_watched_and_started_again(project: Several, beta: Machine) -> None:
    manager(beta)
    (before,) = raylets(beta)
    assert "a reboot brings back: beta" in project.ok("service", "install", "beta")
    eventually(lambda: service(project) == "active", 10, "it watches")
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

"""The other way round: on BETA itself, with a clone and a Python of its own, into a cluster."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.hosts.machines.machine import Machine
from tests.hosts.machines.ssh import installed, sshd_here
from tests.hosts.machines.yard import Yard
from tests.hosts.managers import forget_manager, manager, raylets, reboot, units
from tests.hosts.several import ALIVE, HEAD, ROOTS, Several, refused
from tests.projects import ROOT, eventually

CLONE = f"{ROOTS}/clone"
PLACE = f"{ROOTS}/.saf-env/joined"
BARE = f"{ROOTS}/bare"
TOKEN = f"{ROOTS}/token"
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
object_store_memory = "200MiB"
[[nodes]]
name = "beta-worker"
host = "beta"
kind = "native"
cpus = 1
object_store_memory = "200MiB"
"""
STATES = {"alpha-head": "ready", "beta-worker": "ready"}


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Iterator[Machine]:
    """With Debian's own Python, and a way to the package index."""
    made = machine_yard.machine("beta", python=True, internet=True, shm="1g")
    yield made
    forget_manager(made)


@pytest.fixture(scope="module")
def project(
    machine_yard: Yard, beta: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    """The project on ALPHA, whose head runs, and a clone of it on BETA."""
    alpha = machine_yard.network.gateway
    made = Several(tmp_path_factory.mktemp("joined"), name="joined", head=alpha, port=31000)
    text = HEAD.format(name="joined", port=made.port)
    hosts = {"alpha": alpha, "beta": beta.address}
    text += FILE.format(**hosts)
    made.file.write_text(text, encoding="utf-8")
    # BETA cannot have an interpreter of ALPHA's own but as an archive.
    said = made.ok("toolchain", "pack", "--python", os.path.realpath(sys.executable))
    table = said[said.index("[python.archives.") :]
    made.file.write_text(f"{text}{table}\n", encoding="utf-8")
    with installed(machine_yard.ssh_config()):
        made.ok("lock", "--python-source", "archive")
        made.ok("up", "alpha-head", timeout=600)
        clone(beta, made)
        yield made
        made.remove()
        assert beta.read("/etc/hosts").count("saf-env") == 0
        assert [p for p in beta.processes() if "ray" in " ".join(p.argv)] == []


def clone(beta: Machine, project: Several) -> None:
    """Give BETA what `git clone` would: saf-env, and the project's cluster file and lock."""
    listed = ["git", "ls-files", "-z"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in files.rstrip("\0").split("\0"):
            tar.add(ROOT / name, f"clone/{name}")
        for name in (project.file.name, f"lockfiles/{project.name}", "archives"):
            tar.add(project.home / name, f"clone/{name}")
    beta.run(["tar", "-x", "-C", ROOTS], stdin=data.getvalue(), timeout=120)


def on(beta: Machine, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """``saf-env`` on BETA, as its user calls it."""
    argv = ["sh", f"{CLONE}/saf_env/bootstrap.sh", "tool", "saf-env", *arguments]
    return beta.run([*argv, "--file", "joined.toml"], check=False, timeout=timeout)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_bare_ray_start_of_another_python_is_refused(project: Several, beta: Machine) -> None:
    """The failure that this project was begun for: the same Ray, another patch of Python.

    Should ALPHA have just the patch that Debian has, Ray lets BETA in.
    """
    ok(on(beta, "plan"))  # brings uv
    uv = f"{CLONE}/.saf/tool/bin/uv"
    beta.run([uv, "venv", "--quiet", "--python", "/usr/bin/python3", BARE])
    install = [uv, "pip", "install", "--quiet", "--python", BARE, "ray[default]==2.60.0"]
    beta.run(install, timeout=300)
    token = (project.state / "token").read_text(encoding="utf-8")
    beta.put(TOKEN, token, mode=0o600)
    start = [f"{BARE}/bin/ray", "start", f"--address={project.head}:{project.port}"]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": TOKEN}
    done = beta.run(start, env=variables, check=False, timeout=120)
    own = beta.run(["/usr/bin/python3", "-c", "import platform; print(platform.python_version())"])
    locked = project.plan()["driver"]["python"]["version"]
    mismatch = "Version mismatch" in done.stdout + done.stderr
    assert mismatch == (done.returncode != 0) == (own.stdout.strip() != locked), done.stderr
    beta.run([f"{BARE}/bin/ray", "stop"], timeout=60)
    beta.run(["rm", "-r", TOKEN, BARE])


def test_check_says_what_is_missing_and_only_of_this_machine(
    project: Several, beta: Machine
) -> None:
    done = on(beta, "check", "--json")
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout)["findings"]
    assert {f["node"] for f in found} == {"beta-worker"}
    levels = {f["id"]: f["level"] for f in found}
    assert levels["head-reachable"] == "ok"
    assert levels["token"] == "fail"
    assert levels["packages-locked"] == "fail", "there is no environment yet"
    refused(on(beta, "check", "alpha-head"), 2, "alpha-head is on alpha, and this machine is beta")
    refused(on(beta, "up"), 2, "this machine is beta", "saf-env join NODE")


def test_it_joins(project: Several, machine_yard: Yard, beta: Machine) -> None:
    """It gets the token by its user's own ssh, who has to trust the head's host first."""
    join = ("join", "beta-worker")
    told = ("this host has no token of cluster joined", f"/tmp/{project.cluster_id}/token")
    refused(on(beta, *join), 6, *told)
    with sshd_here(machine_yard.folder, project.head, 2222, machine_yard.public_key) as key:
        beta.put(f"{ROOTS}/.ssh/config", f"Host {project.head}\n    Port 2222\n")
        beta.put(f"{ROOTS}/.ssh/id_ed25519", machine_yard.key, mode=0o600)
        refused(on(beta, *join), 6, *told, "alpha: its host key is not known", "trust it with")
        beta.put(f"{ROOTS}/.ssh/known_hosts", f"[{project.head}]:2222 {key}\n")
        fixed = on(beta, "check", "beta-worker", "--fix", timeout=900)
    token = f"{PLACE}/.saf/clusters/joined/token"
    assert beta.read(token) == (project.state / "token").read_text(encoding="utf-8")
    assert beta.run(["stat", "-c", "%a", token]).stdout == "600\n"
    assert "beta-worker: may join" in ok(fixed), "what was missing is made, and not started"
    assert project.driver(ALIVE).stdout == "1\n"
    said = ok(on(beta, "join", "beta-worker"))
    assert "2 of 2 nodes ready" in said
    assert "started beta-worker" in said
    assert project.driver(ALIVE).stdout == "2\n"
    assert "everything was up already" in ok(on(beta, "join", "beta-worker"))


def test_both_sides_tell_the_same(project: Several, beta: Machine) -> None:
    here, there = project.ok("status", "--json"), ok(on(beta, "status", "--json"))
    assert json.loads(here) == json.loads(there)
    assert {n["name"]: n["state"] for n in json.loads(here)["nodes"]} == STATES
    assert "everything was up already" in project.ok("up")
    assert "beta-worker raylet.out: " in ok(on(beta, "logs", "--lines", "1000"))
    assert json.loads(ok(on(beta, "check", "--json")))["ok"]


def test_workloads_are_right_from_there(project: Several, beta: Machine) -> None:
    said = json.loads(ok(on(beta, "test", "pi", "--quick", "--json")))
    assert said["verdict"] == "ok"
    assert {outcome["node"] for outcome in said["outcomes"]} == STATES.keys()


def services(said: str) -> dict[str, str]:
    """State by node, as `saf-env service status --json` tells it."""
    return {one["node"]: one["state"] for one in json.loads(said)["services"]}


def test_its_own_nodes_come_back_by_a_service_of_this_side(project: Several, beta: Machine) -> None:
    manager(beta)
    (before,) = raylets(beta)
    elsewhere = "alpha-head is on alpha, and this machine is beta"
    for action in ("install", "remove", "status"):
        refused(on(beta, "service", action, "alpha-head"), 2, elsewhere)
    assert "a reboot brings back: beta-worker\n" in ok(on(beta, "service", "install"))
    assert raylets(beta) == [before]
    status = ("service", "status", "--json")
    assert services(ok(on(beta, *status))) == {"beta-worker": "active"}
    assert services(project.ok(*status)) == {"alpha-head": "absent", "beta-worker": "active"}
    reboot(beta)
    eventually(lambda: raylets(beta), 60, "the node is started")
    ok(on(beta, "join", "beta-worker"))  # starts it anew if the head does not know it yet
    assert project.status() == STATES
    assert services(ok(on(beta, *status))) == {"beta-worker": "active"}
    (before,) = raylets(beta)
    assert "removed the service of beta-worker" in ok(on(beta, "service", "remove"))
    assert raylets(beta) == [before]
    assert units(beta) == ""
    assert services(project.ok(*status))["beta-worker"] == "absent"


def test_another_python_in_the_same_place_does_not_join(project: Several, beta: Machine) -> None:
    ok(on(beta, "down"))
    python = f"{PLACE}/.saf/envs/$(ls {PLACE}/.saf/envs | grep base)/bin/python"
    before = beta.run(["sh", "-c", f'readlink "{python}"']).stdout.strip()
    beta.run(["sh", "-c", f'ln -sfn /usr/bin/python3 "{python}"'])
    refused(on(beta, "join", "beta-worker"), 4, "beta-worker", "python-build")
    beta.run(["sh", "-c", f'ln -sfn {before} "{python}"'])


def test_another_lock_does_not_join(project: Several, beta: Machine) -> None:
    text = project.file.read_text(encoding="utf-8")
    other = text.replace("200MiB", "201MiB", 1)  # of the head: its start would be another
    beta.put(f"{CLONE}/joined.toml", other)
    refused(on(beta, "join", "beta-worker"), 6, "started from another cluster file or lock")
    clone(beta, project)


def test_down_is_for_its_own_nodes(project: Several, beta: Machine) -> None:
    ok(on(beta, "join", "beta-worker"))
    refused(on(beta, "down", "alpha-head"), 2, "alpha-head is on alpha")
    assert "stopped: beta-worker" in ok(on(beta, "down"))
    assert project.status()["alpha-head"] == "ready"
    assert "started beta-worker" in project.ok("up", timeout=600)
    assert project.status() == STATES

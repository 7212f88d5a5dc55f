"""The cluster of three hosts: its logs, its head elsewhere, hosts that are not what they seem.

It comes after ``test_several.py``: what the hosts need is there by then.
"""

from __future__ import annotations

import contextlib
import json
import signal
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hosts.machines.machine import Machine
from tests.hosts.several import HOME, READY, SAID, Made, Several, refused


@pytest.fixture(scope="module")
def beta(several: Made) -> Machine:
    return several.beta


@pytest.fixture(scope="module")
def gamma(several: Made) -> Machine:
    return several.gamma


@pytest.fixture(scope="module", autouse=True)
def known(several: Made) -> None:
    """The name of the container is known on GAMMA, where saf-env may not write it."""
    name = "alpha-linux.several.saf"
    if name not in several.gamma.read("/etc/hosts"):
        several.gamma.hosts_line(several.yard.network.gateway, name)


@pytest.fixture
def up(several: Made) -> Several:
    several.project.ok("up", timeout=600)
    return several.project


@pytest.fixture
def down(several: Made) -> Several:
    several.project.ok("down")
    return several.project


@contextlib.contextmanager
def written(project: Several, *changes: tuple[str, str]) -> Iterator[None]:
    """For this time the cluster file has the second of each pair in the place of the first."""
    text = changed = project.file.read_text(encoding="utf-8")
    for old, new in changes:
        assert changed.count(old) == 1
        changed = changed.replace(old, new)
    project.file.write_text(changed, encoding="utf-8")
    try:
        yield
    finally:
        project.file.write_text(text, encoding="utf-8")


# Logs


def test_logs_of_every_host_are_followed(up: Several) -> None:
    following = up.start("logs", "--follow", "--lines", "1")
    assert following.stdout is not None
    following.stdout.readline()  # from now on it follows
    limit = threading.Timer(60, following.kill)
    limit.start()
    assert up.driver(SAID).returncode == 0
    told: set[str] = set()
    for line in following.stdout:
        if line.rstrip().endswith(": said by a task"):
            told.add(line.split()[0])
        if told == READY.keys():
            break
    limit.cancel()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=20)
    assert told == READY.keys()
    assert following.returncode == 130


def test_a_bundle_has_every_host_and_no_secret(up: Several, tmp_path: Path) -> None:
    up.ok("logs", "--bundle", str(tmp_path / "all.tar.gz"))
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        files = [file for file in archive if file.isfile()]
        texts = {f.name.removeprefix("all/"): archive.extractfile(f) for f in files}
        read = {name: file.read().decode() for name, file in texts.items() if file}
    assert {f"logs/{node}/raylet.out" for node in READY} <= read.keys()
    assert json.loads(read["facts.json"]).keys() == READY.keys()
    assert {n["state"] for n in json.loads(read["status.json"])["nodes"]} == {"ready"}
    assert "missing.txt" not in read
    secret = (up.state / "token").read_text(encoding="utf-8").strip()
    assert [name for name, text in read.items() if secret in text] == []


# The head is not where the cluster is run from


@pytest.fixture
def elsewhere(down: Several, several: Made) -> Iterator[Several]:
    """The same cluster, with its head on BETA, and still run from ALPHA."""
    head, node = 'kind = "native"\nrole = "head"\n', 'kind = "native"\n'
    with written(
        down,
        (f'host = "alpha"\n{head}', f'host = "alpha"\n{node}'),
        (f'host = "beta"\n{node}', f'host = "beta"\n{head}'),
    ):
        made = replace(down, head=several.beta.address)
        yield made
        made.remove()
    for machine in (several.beta, several.gamma):  # of a cluster with another head it is not purged
        machine.run(["rm", "-r", f"/tmp/{made.cluster_id}"])


def test_a_head_on_another_host(elsewhere: Several, beta: Machine) -> None:
    elsewhere.ok("up", timeout=900)
    assert elsewhere.plan()["address"] == f"{beta.address}:{elsewhere.port}"
    assert elsewhere.status() == READY
    assert "everything was up already" in elsewhere.ok("up")
    assert json.loads(elsewhere.ok("check", "--json"))["ok"]
    said = json.loads(elsewhere.ok("test", "pi", "--quick", "--json"))
    assert said["verdict"] == "ok"
    assert {outcome["node"] for outcome in said["outcomes"]} == READY.keys()
    # Its host loses its power: what is left is stopped, and all of it starts anew.
    beta.kill_all()
    try:
        refused(elsewhere.saf_env("down"), 5, "beta-mlx may still run")
        assert elsewhere.processes() == []
    finally:
        beta.boot()
    assert "started beta-mlx, alpha-head, alpha-linux, gamma" in elsewhere.ok("up")
    assert elsewhere.status() == READY


# What a host has wrong


def test_a_clock_that_is_five_minutes_off(down: Several, beta: Machine) -> None:
    with beta.fast_clock(300):
        found = json.loads(down.saf_env("check", "--json").stdout)["findings"]
        wrong = {f["node"] for f in found if (f["id"], f["level"]) == ("clock", "fail")}
        assert wrong == {"beta-mlx"}
        refused(down.saf_env("up"), 4, "beta-mlx: clock", "Nothing was started", "timedatectl")
    assert down.processes() == []
    assert json.loads(down.ok("check", "--only", "clock", "--json"))["ok"]


def test_a_name_that_leads_to_loopback(down: Several, beta: Machine) -> None:
    """As Debian has it: a machine's own name is 127.0.1.1 there."""
    hosts = beta.read("/etc/hosts")
    beta.put("/etc/hosts", hosts.replace(f"{beta.address} beta", "127.0.1.1 beta"))
    try:
        with written(down, (f'address = "{beta.address}"', 'address = "beta"')):
            said = "no other host could reach beta by beta"
            remedy = "take beta out of the line of 127.0.1.1 in /etc/hosts on beta"
            refused(down.saf_env("up"), 4, "beta-mlx: address", said, "Nothing was", remedy)
    finally:
        beta.put("/etc/hosts", hosts)
    assert down.processes() == []


def test_two_hosts_with_one_address(down: Several, beta: Machine, gamma: Machine) -> None:
    """In so many words; and by a name for what the other has in digits."""
    own, digits = f'address = "{gamma.address}"', f'address = "{beta.address}"'
    with written(down, (own, digits)):
        said = f'address "{beta.address}" is given to 2 hosts'
        refused(down.saf_env("up"), 2, said)
    hosts = beta.read("/etc/hosts")
    beta.hosts_line(beta.address, "twin")
    way = 'ssh = "anna@gamma"\nport = 2222\npath = "~/ray node"\n'
    try:
        with written(down, (own, 'address = "twin"'), (way, 'ssh = "root@beta"\n')):
            done = down.saf_env("check", "--only", "address", "--json")
    finally:
        beta.put("/etc/hosts", hosts)
    assert done.returncode == 4
    found = {f["node"]: f for f in json.loads(done.stdout)["findings"] if f["level"] == "fail"}
    assert found["gamma"]["summary"] == "host beta has the same address"
    assert "correct the address of host gamma" in found["gamma"]["hint"]
    assert found["beta-mlx"]["summary"] == "host gamma has the same address"
    assert down.processes() == []


# In the end


def test_purge_leaves_nothing_on_other_hosts(down: Several, beta: Machine, gamma: Machine) -> None:
    assert "removed what saf-env had" in down.ok("down", "--purge")
    for machine in (beta, gamma):
        left = machine.run(
            ["sh", "-c", 'ls -d "$1" ~/.saf-env /tmp/saf-*', "sh", HOME[machine.name]],
            check=False,
        )
        assert left.stdout == ""
    assert (down.home / ".saf" / "envs").is_dir()

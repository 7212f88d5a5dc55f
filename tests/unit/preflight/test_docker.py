"""The checks of container nodes, judged from facts made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.plan.model import ClusterPlan, ImagePlan, NodePlan
from saf_env.preflight.registry import CHECKS, judge
from tests.unit.preflight.test_checks import changed, make_facts, make_node, make_plan, verdict

GIB = 2**30
KEY, BASE, IMAGE = "0123456789ab", "sha256:" + "b" * 64, "sha256:" + "c" * 64
TAG = f"saf-env:base-linux-x86_64-{KEY}"
DENIED = "permission denied while trying to connect to the Docker daemon socket"


def make_container(**changes: Any) -> NodePlan:
    """A worker in a container on the host of ``head``."""
    node = make_node("box", 6480)
    container = dataclasses.replace(
        node,
        kind="container",
        network="bridge",
        advertise="box.local.saf",
        object_store_memory=GIB,
        image=ImagePlan(KEY, TAG, BASE, node.environment, "f" * 64),
    )
    return dataclasses.replace(container, **changes)


def make_container_facts(node: NodePlan) -> dict[str, Any]:
    """Facts of a container node that is exactly as planned."""
    facts = make_facts(node)
    of_image = {"os": "linux", "architecture": "amd64"}
    facts["facts"]["docker"] = {
        "client": "28.2.2",
        "compose": "2.26.1",
        "buildx": "0.13.1",
        "compose_alone": "",
        "error": "",
        "engine": "20.10.24",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "name": "debian",
        "kernel": "6.1.0",
        "architecture": "x86_64",
        "cpus": 2,
        "memory": 64 * GIB,
        "security": ["seccomp"],
        "endpoint": "unix:///var/run/docker.sock",
        "disk": {"path": "/var/lib/docker", "total": 100 * GIB, "free": 50 * GIB},
        "image": {"id": IMAGE, "labels": {"saf-env.key": KEY}, **of_image},
        "base": {"id": BASE, "labels": {}, **of_image},
        "running": "",
    }
    facts["facts"]["host"] = facts["facts"]["platform"]
    facts["facts"]["names"] = {"addresses": {node.advertise: [node.address]}, "writable": True}
    return facts


def on_mac(box: NodePlan) -> ClusterPlan:
    """A plan where the host of ``box`` is a Mac."""
    plan = make_plan(make_node("head", 6380), box)
    mac = dataclasses.replace(plan.hosts["here"], platform="macos-arm64")
    return dataclasses.replace(plan, hosts={"here": mac})


BOX = make_container()
FACTS = make_container_facts(BOX)


def test_a_container_as_planned_passes_every_check() -> None:
    found = judge(make_plan(make_node("head", 6380), BOX), BOX, FACTS, ())
    assert {f.level for f in found} == {"ok"}, found
    assert [f.id for f in found] == [c.id for c in CHECKS if c.applies(BOX)]
    assert not {"cpu", "metal", "nofile"} & {f.id for f in found}


def test_native_nodes_are_not_asked_about_docker() -> None:
    node = make_node("head", 6380)
    found = judge(make_plan(node), node, make_facts(node), ())
    assert not [f.id for f in found if "docker" in f.id or "image" in f.id]


CASES = [
    # check, path of the fact, its value, level, words of the finding
    ("docker-engine", "docker.error", "Cannot connect", "fail", "does not answer"),
    ("docker-engine", "docker.engine", "19.03.5", "fail", "at least 20.10 is needed"),
    ("docker-engine", "docker.engine", "dev", "warn", "not known"),
    ("docker-engine", "docker.endpoint", "tcp://10.0.0.2:2376", "fail", "on another machine"),
    ("docker-engine", "docker.endpoint", "tcp://localhost:x@beta:1", "fail", "another machine"),
    ("docker-engine", "docker.endpoint", "ssh://localhost@beta", "fail", "unset DOCKER_HOST"),
    ("docker-engine", "docker.endpoint", "tcp://127.0.0.1:2375", "ok", "20.10"),
    ("docker-engine", "docker.endpoint", "tcp://[::1]:2375", "ok", "20.10"),
    ("docker-engine", "docker.endpoint", "", "ok", "20.10"),
    ("disk", "docker.disk.free", GIB // 2, "fail", "the Docker engine"),
    ("disk", "docker.disk.free", 4 * GIB, "warn", "95 % full"),
    ("disk", "docker.disk", None, "ok", "disk"),
    ("docker-engine", "docker.error", DENIED, "skip", "permission denied"),
    ("docker-rights", "docker.error", DENIED, "fail", "usermod -aG docker"),
    ("docker-rights", "docker.error", "Cannot connect", "skip", "Cannot connect"),
    ("docker-compose", "docker.compose", "2.19.1", "fail", "at least 2.20 is needed"),
    ("docker-compose", "docker.compose", "", "fail", "`docker compose` is not installed"),
    ("docker-compose", "docker.compose", "unknown", "warn", "not known"),
    ("docker-vm", "docker.architecture", "arm64", "fail", "containers for aarch64"),
    ("docker-vm", "docker.memory", GIB // 2, "fail", "1.0 GiB are planned"),
    ("docker-vm", "docker.cpus", 0, "fail", "1 CPUs are planned"),
    ("image-present", "docker.image", None, "fail", "not built"),
    ("image-present", "docker.image.labels", {}, "fail", "made from another plan"),
    ("image-present", "docker.running", IMAGE, "ok", TAG),
    ("image-present", "docker.running", BASE, "warn", "runs another image"),
    ("image-present", "docker.image.architecture", "arm64", "fail", "linux on aarch64"),
    ("container-user", "docker.security", ["rootless"], "fail", "rootless"),
    ("container-user", "docker.security", ["userns"], "fail", "userns"),
    ("container-user", "token.mode", 0o200, "fail", "chmod 600 /p/token"),
    ("container-user", "token.owner", 0, "ok", "a copy of the token"),
    ("advertised-name", "names.addresses", {}, "warn", "box.local.saf is not known"),
    ("advertised-name", "names.addresses", {"box.local.saf": ["10.0.0.9"]}, "warn", "10.0.0.9"),
    ("shm", "docker.memory", GIB, "warn", "leaves little memory"),
]


@pytest.mark.parametrize(("check", "path", "value", "level", "words"), CASES)
def test_a_difference_is_found(
    check: str, path: str, value: object, level: str, words: str
) -> None:
    found = verdict(check, changed(FACTS, path, value), BOX)
    assert found.level == level, found
    assert words in f"{found.summary} {found.evidence} {found.hint}"


def test_docker_that_is_not_installed_is_told_for_the_system() -> None:
    nothing = dict.fromkeys(("client", "compose", "buildx", "compose_alone", "engine"), "")
    facts = changed(FACTS, "docker", {**nothing, "error": "there is no docker command"})
    assert "make engine" in verdict("docker-engine", facts, BOX).hint
    assert "Docker Desktop" in verdict("docker-engine", facts, BOX, plan=on_mac(BOX)).hint
    assert verdict("docker-compose", facts, BOX).level == "skip"


def test_compose_v1_alone_is_named() -> None:
    facts = changed(changed(FACTS, "docker.compose", ""), "docker.compose_alone", "1.29.2")
    found = verdict("docker-compose", facts, BOX)
    assert (found.level, found.summary) == ("fail", "only Compose v1 is installed")


def test_a_node_that_fell_back_is_told_why() -> None:
    node = dataclasses.replace(
        BOX, kind="native", image=None, fallback_reason="no Docker engine answers on host here"
    )
    facts = changed(FACTS, "docker.error", "Cannot connect to the Docker daemon")
    found = verdict("docker-engine", facts, node)
    assert (found.level, found.summary) == (
        "warn",
        "runs natively: no Docker engine answers on host here",
    )
    assert "make engine" in found.hint


def test_containers_of_one_host_share_its_engine() -> None:
    boxes = [make_container(name=name, memory=40 * GIB, cpus=2) for name in ("box", "chest")]
    plan = make_plan(make_node("head", 6380), *boxes)
    found = verdict("docker-vm", FACTS, boxes[0], plan=plan)
    assert found.level == "fail"
    assert "80.0 GiB are planned for containers box, chest together" in found.summary
    lean = [dataclasses.replace(box, memory=GIB * 8) for box in boxes]
    found = verdict("docker-vm", FACTS, lean[0], plan=make_plan(make_node("head", 6380), *lean))
    assert (found.level, "4 CPUs" in found.summary) == ("warn", True)


def test_the_hosts_network_is_not_to_be_had_on_a_mac() -> None:
    node = make_container(network="host")
    assert verdict("docker-vm", FACTS, node).level == "ok"
    found = verdict("docker-vm", FACTS, node, plan=on_mac(node))
    assert (found.level, "take network" in found.hint) == ("fail", True)


def test_what_stands_in_the_way_of_an_image() -> None:
    absent = changed(FACTS, "docker.image", None)
    assert "saf-env up" in verdict("image-present", absent, BOX).hint
    no_base = changed(absent, "docker.base", None)
    assert "make base-image" in verdict("image-present", no_base, BOX).hint
    no_buildx = changed(absent, "docker.buildx", "")
    assert "docker-buildx-plugin" in verdict("image-present", no_buildx, BOX).hint
    other = changed(absent, "docker.base.architecture", "arm64")
    assert "base image is for another platform" in verdict("image-present", other, BOX).summary
    unlocked = dataclasses.replace(BOX, image=None)
    assert "no base image" in verdict("image-present", FACTS, unlocked).summary


def test_a_native_node_needs_the_names() -> None:
    head = make_node("head", 6380)
    plan = make_plan(head, BOX)
    facts = make_facts(head)
    found = verdict("advertised-name", facts, head, plan=plan)
    assert (found.level, "--fix" in found.hint) == ("fail", True)
    facts = changed(facts, "names.writable", False)
    found = verdict("advertised-name", facts, head, plan=plan)
    line = "127.0.0.2 box.local.saf # saf-env saf-0123456789"
    assert f"printf '{line}\\n' | sudo tee -a /etc/hosts" in found.hint
    facts = changed(facts, "names.addresses", {"box.local.saf": ["127.0.0.2"]})
    assert verdict("advertised-name", facts, head, plan=plan).level == "ok"


@pytest.mark.parametrize("writable", [True, False])
def test_what_else_names_a_node_has_to_go(writable: bool) -> None:
    head = make_node("head", 6380)
    facts = changed(FACTS, "names", {"addresses": {}, "writable": writable})
    for there, missing in ((["10.0.0.9"], True), (["10.0.0.9", "127.0.0.2"], False)):
        seen = changed(facts, "names.addresses", {"box.local.saf": there})
        found = verdict("advertised-name", seen, head, plan=make_plan(head, BOX))
        assert (found.level, found.evidence) == ("fail", "box.local.saf is 10.0.0.9, not 127.0.0.2")
        assert found.hint.startswith("take box.local.saf out of /etc/hosts")
        assert ("--fix" in found.hint) is (missing and writable)
        assert ("sudo tee" in found.hint) is (missing and not writable)


PROXY = {"port": 6484, "name": "node_manager", "error": "", "pid": 7, "mark": ""}


def test_a_running_containers_ports_are_held_by_the_engine() -> None:
    held = changed(FACTS, "ports.held", [{**PROXY, "command": "docker-proxy"}])
    assert verdict("ports-free", held, BOX, running=True).level == "ok"
    found = verdict("ports-free", held, BOX)
    assert (found.level, "docker ps --filter publish=6484" in found.hint) == ("fail", True)
    other = changed(FACTS, "ports.held", [{**PROXY, "command": "redis"}])
    assert verdict("ports-free", other, BOX, running=True).level == "fail"


def test_the_object_store_of_a_container_must_leave_memory() -> None:
    greedy = make_container(memory=GIB, object_store_memory=GIB)
    found = verdict("memory", FACTS, greedy)
    assert "takes all of the container's memory" in found.summary
    tight = make_container(memory=GIB + GIB // 4)
    assert verdict("shm", FACTS, tight).level == "warn"

"""The plan: what each node is told, and what makes two plans differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saf_env.lock.files import read
from saf_env.lock.model import Lock
from saf_env.plan.build import NO_ENGINE, build, folder_of, temp_dirs
from saf_env.plan.model import ClusterPlan
from saf_env.platforms import PLATFORMS
from saf_env.spec.model import ClusterSpec
from saf_env.spec.parse import parse

HOME = Path("/project")


def test_the_head_comes_first_and_has_the_first_block_of_ports(plan: ClusterPlan) -> None:
    assert [node.name for node in plan.nodes] == ["head", "linux"]
    assert plan.head.ports.gcs == 6380
    assert plan.address == "127.0.0.2:6380"
    assert plan.nodes[1].ports.gcs is None
    assert plan.nodes[1].ports.node_manager == 6484


def test_no_two_ports_of_a_cluster_are_the_same(plan: ClusterPlan) -> None:
    ports = [
        port
        for node in plan.nodes
        for port in (
            *node.ports.fixed().values(),
            *range(node.ports.min_worker, node.ports.max_worker + 1),
        )
    ]
    assert len(set(ports)) == len(ports)
    assert max(ports) == 6579


def test_a_container_falls_back_and_says_why(plan: ClusterPlan) -> None:
    linux = plan.node("linux")
    assert linux.kind == "native"
    assert "no Docker engine answers" in linux.fallback_reason
    assert linux.labels["saf-kind"] == "native"
    assert plan.head.fallback_reason == ""


def with_base(lock: Lock) -> Lock:
    linux = replace(lock.toolchains["linux"], base_image="debian@sha256:" + "d" * 64)
    return replace(lock, toolchains={**lock.toolchains, "linux": linux})


def test_without_a_base_image_a_container_falls_back_too(spec: ClusterSpec, lock: Lock) -> None:
    linux = build(spec, lock, HOME).node("linux")
    assert linux.kind == "native"
    assert "no base image" in linux.fallback_reason


def test_with_an_engine_a_container_stays_one(spec: ClusterSpec, lock: Lock) -> None:
    plan = build(spec, with_base(lock), HOME)
    assert plan.node("linux").kind == "container"
    assert plan.node("linux").fallback_reason == ""


def example() -> tuple[ClusterSpec, Lock]:
    root = Path(__file__).parents[3]
    spec = parse((root / "examples" / "studio.toml").read_text(encoding="utf-8"))
    return spec, read(root, "studio")


def test_an_engine_of_this_machine_says_nothing_of_other_hosts() -> None:
    spec, lock = example()
    nodes = tuple(
        replace(n, fallback="native" if n.kind == "container" else None) for n in spec.nodes
    )
    may_fall_back = replace(spec, nodes=nodes)
    with_one = build(may_fall_back, lock, HOME)
    without = build(may_fall_back, lock, HOME, no_containers={"alpha": NO_ENGINE})
    assert [n.kind for n in with_one.nodes if n.name.endswith("linux")] == ["container"] * 2
    assert without.node("alpha-linux").kind == "native"
    assert without.node("beta-linux") == with_one.node("beta-linux")
    assert without.node("gamma-mlx") == with_one.node("gamma-mlx")


def test_the_example_is_planned_alike_with_and_without_an_engine() -> None:
    spec, lock = example()
    assert build(spec, lock, HOME) == build(
        spec, lock, HOME, no_containers=dict.fromkeys(spec.hosts, NO_ENGINE)
    )


def test_resources_and_labels_name_the_node_its_groups_and_the_users_own(plan: ClusterPlan) -> None:
    assert plan.head.resources == {"mlx": 1.0, "saf_node_head": 1.0, "tape": 2.0}
    assert plan.head.labels == {
        "saf-host": "here",
        "saf-kind": "native",
        "saf-mlx": "true",
        "saf-node": "head",
        "saf-platform": "linux-x86_64",
    }
    assert plan.nodes[1].resources == {"saf_node_linux": 1.0}


def test_variables_are_explicit_and_hold_no_secret(plan: ClusterPlan) -> None:
    for node in plan.nodes:
        assert node.variables["RAY_AUTH_MODE"] == "token"
        assert node.variables["RAY_AUTH_TOKEN_PATH"] == str(plan.folder / "token")
        assert node.variables["RAY_worker_niceness"] == "0"
        assert "RAY_AUTH_TOKEN" not in node.variables
        assert "RAY_ENABLE_MAC_LARGE_OBJECT_STORE" not in node.variables
    assert plan.head.variables["DASHBOARD_METRIC_PORT"] == "6382"


def test_a_mac_gets_what_ray_needs_there(spec: ClusterSpec, lock: Lock) -> None:
    mac = replace(lock.toolchains["head"].interpreters["linux-x86_64"], platform="macos-arm64")
    toolchains = {
        name: replace(t, platforms=("macos-arm64",), interpreters={"macos-arm64": mac})
        for name, t in lock.toolchains.items()
    }
    on_a_mac = replace(lock, toolchains=toolchains)
    one = replace(spec, nodes=tuple(n for n in spec.nodes if n.role == "head"))
    alone = build(one, on_a_mac, HOME).head
    assert alone.variables["RAY_ENABLE_MAC_LARGE_OBJECT_STORE"] == "1"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in alone.variables
    fell_back = build(spec, on_a_mac, HOME, no_containers={"here": NO_ENGINE})
    for node in fell_back.nodes:  # without it no worker starts
        assert node.variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
    host = replace(spec.hosts["here"], address="100.64.0.1")
    several = build(
        replace(spec, hosts={"here": host}), on_a_mac, HOME, no_containers={"here": NO_ENGINE}
    )
    assert several.head.variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
    assert several.address == "100.64.0.1:6380"


def test_the_fingerprint_follows_packages_and_interpreter(spec: ClusterSpec, lock: Lock) -> None:
    first = build(spec, lock, HOME, no_containers={"here": NO_ENGINE})
    assert first.head.fingerprint != first.nodes[1].fingerprint
    toolchain = lock.toolchains["head"]
    other_build = replace(toolchain.interpreters["linux-x86_64"], sha256="0" * 64)
    changed = replace(toolchain, interpreters={"linux-x86_64": other_build})
    second = build(
        spec,
        replace(lock, toolchains={**lock.toolchains, "head": changed}),
        HOME,
        no_containers={"here": NO_ENGINE},
    )
    assert second.head.fingerprint != first.head.fingerprint
    assert second.head.environment.key != first.head.environment.key
    assert second.nodes[1].fingerprint == first.nodes[1].fingerprint


def test_nodes_with_one_environment_share_its_folder(spec: ClusterSpec, lock: Lock) -> None:
    same = replace(lock.toolchains["head"], node="linux")
    shared = replace(lock, toolchains={**lock.toolchains, "linux": same})
    plan = build(spec, shared, HOME, no_containers={"here": NO_ENGINE})
    assert plan.head.environment.path == plan.nodes[1].environment.path
    assert plan.head.temp_dir != plan.nodes[1].temp_dir


def test_logs_are_found_without_a_lock(spec: ClusterSpec, plan: ClusterPlan) -> None:
    assert temp_dirs(spec, HOME) == {node.name: node.temp_dir for node in plan.nodes}


@pytest.mark.parametrize("home", ["/p", "/" + "a" * 200, "/tmp/a b é/ü"])
def test_sockets_fit_whatever_the_projects_path(home: str) -> None:
    folder = folder_of(home, "c" * 63)
    longest = folder / "255" / f"session_2026-11-23_20-24-23_167655_{2**22}" / "sockets"
    limit = min(platform.socket_path_limit for platform in PLATFORMS.values())
    assert len(str(longest / "dash_MetricsHead_and_more")) <= limit
    assert folder == folder_of(home, "c" * 63)
    assert folder != folder_of(home, "d")


def test_an_ipv6_address_is_bracketed(spec: ClusterSpec, lock: Lock) -> None:
    host = replace(spec.hosts["here"], address="fd00::1")
    plan = build(replace(spec, hosts={"here": host}), lock, HOME, no_containers={"here": NO_ENGINE})
    assert plan.address == "[fd00::1]:6380"
    assert plan.head.address == "fd00::1"

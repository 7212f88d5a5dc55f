from __future__ import annotations

from dataclasses import replace

import pytest

from saf_env.lock.inputs import (
    cluster_platforms,
    differences,
    environment_name,
    environment_platforms,
    group_platforms,
    inputs,
    inputs_digest,
    node_platforms,
)
from saf_env.spec.model import ClusterSpec, HostSpec, NodeSpec


def node(spec: ClusterSpec, name: str) -> NodeSpec:
    return next(n for n in spec.nodes if n.name == name)


def test_a_container_is_linux_and_its_fallback_the_host(studio: ClusterSpec) -> None:
    inside = node(studio, "inside")
    assert node_platforms(studio, inside) == ("linux-arm64", "macos-arm64")
    assert node_platforms(studio, replace(inside, fallback=None)) == ("linux-arm64",)
    assert node_platforms(studio, replace(inside, host="gamma")) == ("linux-x86_64",)
    assert node_platforms(studio, node(studio, "mac")) == ("macos-arm64",)


def test_the_head_comes_first(studio: ClusterSpec) -> None:
    assert cluster_platforms(studio) == ("macos-arm64", "linux-arm64", "linux-x86_64")


def test_one_environment_for_each_set_of_groups(studio: ClusterSpec) -> None:
    assert environment_platforms(studio) == {
        "base": ("linux-arm64", "macos-arm64"),
        "cuda+mlx": ("linux-x86_64",),
        "driver": ("linux-arm64", "linux-x86_64", "macos-arm64"),
        "mlx": ("macos-arm64",),
    }
    assert group_platforms(studio) == {
        "cuda": ("linux-x86_64",),
        "mlx": ("linux-x86_64", "macos-arm64"),
    }
    assert environment_name(()) == "base"
    assert environment_name(("mlx", "cuda")) == "cuda+mlx"


def test_a_host_without_a_platform_is_this_machine(studio: ClusterSpec) -> None:
    alpha = HostSpec("alpha", None, None, None)
    (platform,) = node_platforms(replace(studio, hosts={"alpha": alpha}), node(studio, "mac"))
    assert platform in ("linux-arm64", "linux-x86_64", "macos-arm64")


def test_what_needs_no_new_lock(studio: ClusterSpec) -> None:
    nodes = tuple(replace(n, cpus=2, memory=2**30, role="worker") for n in studio.nodes)
    environment = replace(
        studio.environment,
        requires=tuple(reversed(studio.environment.requires)),
        groups={**studio.environment.groups, "unused": ("something-else",)},
    )
    head = replace(nodes[1], role="head")
    other = replace(
        studio,
        port=7000,
        environment=environment,
        nodes=(head, nodes[2], nodes[0]),
    )
    assert inputs_digest(other) == inputs_digest(studio)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"requires": ("ray==2.60.0",)}, 'environment.requires changed: without "numpy"'),
        (
            {"requires": ("ray==2.60.0", "numpy<2")},
            'environment.requires changed: with "numpy<2", without "numpy"',
        ),
        (
            {"exclude_newer": None},
            'environment.exclude_newer changed: "2026-11-10" -> nothing',
        ),
        ({"driver": ("rich",)}, 'environment.driver changed: with "rich"'),
    ],
)
def test_a_change_is_named(studio: ClusterSpec, change: dict[str, object], line: str) -> None:
    environment = replace(studio.environment, **change)  # type: ignore[arg-type]
    new = replace(studio, environment=environment)
    assert list(differences(inputs(studio), inputs(new))) == [line]
    assert inputs_digest(new) != inputs_digest(studio)


def test_changed_nodes_and_python_are_named(studio: ClusterSpec) -> None:
    box = replace(node(studio, "box"), name="crate")
    new = replace(
        studio,
        nodes=(*studio.nodes[:2], box),
        python=replace(studio.python, version="3.12"),
    )
    assert list(differences(inputs(studio), inputs(new))) == [
        "nodes.box was removed",
        "nodes.crate was added",
        'python.version changed: "3.13" -> "3.12"',
    ]

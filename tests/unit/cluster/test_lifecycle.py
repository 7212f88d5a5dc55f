"""What makes two starts of a node differ, and what is told of one that died."""

from __future__ import annotations

from dataclasses import replace

from saf_env.cluster.lifecycle import last_words, plan_digest
from saf_env.plan.model import ClusterPlan, ImagePlan


def test_a_plan_has_one_digest(plan: ClusterPlan) -> None:
    node = plan.node("linux")

    assert plan_digest(node, plan.address) == plan_digest(replace(node), plan.address)
    assert len(plan_digest(node, plan.address)) == 16


def test_all_that_decides_how_a_node_runs_is_in_the_digest(plan: ClusterPlan) -> None:
    node = plan.node("linux")
    changed = [
        replace(node, cpus=4),
        replace(node, memory=2**30),
        replace(node, resources={}),
        replace(node, labels={}),
        replace(node, variables={}),
        replace(node, advertise="127.0.0.3"),
        replace(node, ports=replace(node.ports, max_worker=9999)),
        replace(node, fingerprint="0" * 64),
        replace(node, environment=plan.head.environment),
    ]

    digests = {plan_digest(n, plan.address) for n in [node, *changed]}

    assert len(digests) == len(changed) + 1
    assert plan_digest(node, "127.0.0.2:6381") not in digests


def test_the_limits_of_a_container_are_in_its_digest(plan: ClusterPlan) -> None:
    image = ImagePlan("k", "t", "b", plan.head.environment, "w")
    node = replace(plan.node("linux"), kind="container", image=image, object_store_memory=2**30)
    changed = [
        replace(node, memory=2**33),
        replace(node, memory=2**34),
        replace(node, network="bridge"),
        replace(node, image=replace(image, key="other")),
    ]
    assert len({plan_digest(n, plan.address) for n in [node, *changed]}) == len(changed) + 1


def test_last_words_are_no_stack() -> None:
    log = "begin\n" + "x" * 600 + "\n/lib/raylet(+0x1ab) [0x7f] main\n\nraylet has ended\n"

    assert last_words(log) == ["begin", "x" * 500, "raylet has ended"]
    assert last_words(log, 1) == ["raylet has ended"]
    assert last_words("") == []

"""What makes two starts of a node differ, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saf_env.cluster.same_plan import plan_digest, refuse_changed, refuse_headless
from saf_env.errors import BringUpError
from saf_env.plan.model import ClusterPlan, ImagePlan
from saf_env.runtimes.base import Found


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


def test_who_joins_needs_a_head_from_the_same_lock(plan: ClusterPlan) -> None:
    roles = {"leader": 1, "raylet": 1, "gcs": 1}
    head = plan.head.name
    same = Found(head, f"{plan_digest(plan.head, plan.address)}.ab", roles, None)
    refuse_headless(plan, {head: same})
    with pytest.raises(BringUpError, match="no head of cluster"):
        refuse_headless(plan, {})
    with pytest.raises(BringUpError, match="another cluster file or lock"):
        refuse_headless(plan, {head: replace(same, run="0123456789abcdef.ab")})


def test_who_joins_is_sent_to_where_the_cluster_is_run_from(plan: ClusterPlan) -> None:
    """The head may be on another host."""
    elsewhere = replace(plan, controller="gamma")
    other = Found(plan.head.name, "0123456789abcdef.ab", {"leader": 1}, None)
    with pytest.raises(BringUpError) as told:
        refuse_headless(elsewhere, {})
    assert told.value.hint.startswith("run `saf-env up` on gamma first")
    with pytest.raises(BringUpError) as told:
        refuse_headless(elsewhere, {plan.head.name: other})
    assert told.value.hint.endswith("to what gamma has")


def test_what_runs_from_an_earlier_plan_is_left_alone(plan: ClusterPlan) -> None:
    roles = {"leader": 1, "raylet": 1}
    now = Found("linux", f"{plan_digest(plan.node('linux'), plan.address)}.1", roles, None)
    refuse_changed(plan, {"linux": now})
    with pytest.raises(BringUpError, match="running from an earlier plan: linux"):
        refuse_changed(plan, {"linux": replace(now, run="0123456789abcdef.1")})

"""Checks that nodes have the same software."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge
from tests.unit.preflight.test_checks import changed, make_facts, make_node, make_plan
from tests.unit.preflight.test_docker import make_container, make_container_facts
from tests.unit.preflight.test_peers import plan_of, verdict

NUMPY = [["numpy", "2.4.7"], ["ray", "2.60.0"]]


def judged(check: str, node: NodePlan, seen: dict[str, Any], *nodes: NodePlan) -> Finding:
    """What ``check`` says of ``node`` where all that is looked at is ``seen``, by node."""
    plan = make_plan(*nodes)
    (found,) = judge(plan, node, seen[node.name], (), only=[check], together=seen)
    return found


def test_other_versions_than_the_head_s() -> None:
    plan = plan_of("head", "beta", "gamma")
    facts = {node.name: make_facts(node) for node in plan.nodes}
    facts["beta"]["facts"]["packages"] = NUMPY

    def of(name: str) -> Finding:
        (found,) = judge(
            plan, plan.node(name), facts[name], (), only=["packages-agree"], together=facts
        )
        return found

    assert (of("beta").level, of("beta").evidence) == ("fail", "numpy 2.4.7, 2.4.6 on head")
    assert "--fix beta" in of("beta").hint
    assert (of("head").level, of("gamma").level) == ("ok", "ok")
    facts["beta"]["facts"]["packages"], facts["head"]["facts"]["packages"] = (
        facts["gamma"]["facts"]["packages"],
        NUMPY,
    )
    assert (of("beta").level, of("beta").evidence) == ("fail", "numpy 2.4.6, 2.4.7 on head")
    assert "--fix head" in of("beta").hint


def test_a_node_that_nobody_looks_at_counts_as_planned() -> None:
    head, beta = make_node("head", 6380), make_node("beta", 6480, host="beta")
    seen = {"beta": make_facts(beta)}
    assert judged("packages-agree", beta, seen, head, beta).level == "ok"
    seen["beta"]["facts"]["packages"] = NUMPY
    found = judged("packages-agree", beta, seen, head, beta)
    assert (found.level, found.evidence) == ("fail", "numpy 2.4.7, 2.4.6 on head")


def test_what_the_head_lacks_is_compared_with_who_has_it() -> None:
    nodes = []
    for i, name in enumerate(("head", "beta", "gamma")):
        node = make_node(name, 6380 + 100 * i, host=name)
        mlx = {} if name == "head" else {"mlx": "0.32.4"}
        environment = dataclasses.replace(node.environment, packages=mlx)
        nodes.append(dataclasses.replace(node, environment=environment))
    seen = {node.name: make_facts(node) for node in nodes}
    seen["gamma"]["facts"]["packages"] = [["mlx", "0.32.3"]]
    seen["beta"]["facts"]["packages"] = [["mlx", "0.32.4"]]
    found = judged("packages-agree", nodes[2], seen, *nodes)
    assert (found.level, found.evidence) == ("fail", "mlx 0.32.3, 0.32.4 on beta")
    assert judged("packages-agree", nodes[1], seen, *nodes).level == "ok"


def test_a_lock_with_two_versions_is_the_lock_s_to_mend() -> None:
    head, beta = make_node("head", 6380), make_node("beta", 6480, host="beta")
    newer = dataclasses.replace(beta.environment, packages=dict(map(tuple, NUMPY)))  # type: ignore[arg-type]
    beta = dataclasses.replace(beta, environment=newer)
    seen = {"head": make_facts(head), "beta": make_facts(beta)}
    seen["beta"]["facts"]["packages"] = NUMPY
    found = judged("packages-agree", beta, seen, head, beta)
    assert found.level == "fail"
    assert "the lock has two versions of numpy" in found.hint


def test_another_build_of_ray() -> None:
    plan = plan_of("head", "beta", "gamma")
    other = {"beta": {"ray_build": {"commit": "8" * 40}}}
    found = verdict("ray-build", plan, other, "beta")
    assert (found.level, found.evidence) == ("fail", "888888888888, 777777777777 on head")
    assert verdict("ray-build", plan, other, "gamma").level == "ok"
    assert verdict("ray-build", plan, other, "head").level == "ok"


def test_a_build_of_ray_where_only_one_node_is_looked_at() -> None:
    head, beta = make_node("head", 6380), make_node("beta", 6480, host="beta")
    assert judged("ray-build", beta, {"beta": make_facts(beta)}, head, beta).level == "ok"


def test_the_head_s_lock_is_this_checkout_s() -> None:
    head, beta = make_node("head", 6380), make_node("beta", 6480, host="beta")
    seen = {"head": make_facts(head), "beta": make_facts(beta)}
    assert judged("lock-same", beta, seen, head, beta).level == "ok"
    seen["head"]["facts"]["environments"] = [["base-0", "d" * 64]]
    found = judged("lock-same", beta, seen, head, beta)
    assert (found.level, found.summary) == ("fail", "the head was provisioned from another lock")
    assert "saf-env up" in found.hint
    # What runs on this host, and is another's, says nothing.
    seen["head"]["facts"]["environments"] = [["driver-0", "0" * 64]]
    assert judged("lock-same", beta, seen, head, beta).level == "ok"


def test_locks_that_differ_in_their_comments_share_an_image() -> None:
    box = make_container()
    seen = {"box": make_container_facts(box)}
    seen["box"]["facts"]["environment"]["marker"]["environment_sha256"] = "0" * 64
    assert judged("lock-same", box, seen, make_node("head", 6380), box).level == "ok"


@pytest.mark.parametrize(
    ("check", "path", "value", "level", "words"),
    [
        ("ray-build", "ray_build.commit", "", "warn", "no commit"),
        ("lock-same", "environments", [["base-k", "0" * 64]], "fail", "requirements 000000000000"),
        ("lock-same", "environments", [["base-j", "d" * 64]], "fail", "base-k, found base-j"),
        ("lock-same", "environments", [["base-j", "0" * 64], ["base-k", "d" * 64]], "ok", ""),
        ("lock-same", "environments", [], "ok", ""),
    ],
)
def test_a_node_by_itself(check: str, path: str, value: object, level: str, words: str) -> None:
    node = make_node("head", 6380)
    found = judged(check, node, {"head": changed(make_facts(node), path, value)}, node)
    assert found.level == level, found
    assert words in f"{found.summary} {found.evidence} {found.hint}"
    assert level == "ok" or found.hint

"""The command of a native node, and what is made of the agent's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saf_env.plan.command import ray_start
from saf_env.plan.model import ClusterPlan
from saf_env.runtimes.base import Died, Found, Started, by_node
from saf_env.runtimes.native import found_nodes, waited


def option(argv: list[str], name: str) -> str:
    (value,) = (word.partition("=")[2] for word in argv if word.startswith(f"--{name}="))
    return value


def test_every_port_of_the_head_is_explicit(plan: ClusterPlan) -> None:
    argv = ray_start(plan.head, plan.address)
    ports = plan.head.ports

    assert "--head" in argv
    assert option(argv, "port") == str(ports.gcs)
    assert option(argv, "dashboard-port") == str(ports.dashboard)
    assert option(argv, "dashboard-host") == "127.0.0.1"
    assert option(argv, "node-manager-port") == str(ports.node_manager)
    assert option(argv, "max-worker-port") == str(ports.max_worker)
    assert option(argv, "node-ip-address") == "127.0.0.2"
    given = {word for word in " ".join(argv).replace("=", " ").split() if word.isdigit()}
    numbers = {str(n) for n in vars(ports).values() if n is not None}
    # The dashboard's metrics have a variable instead of an option.
    assert numbers - {str(ports.dashboard_metrics)} <= given


def test_a_worker_joins_the_head(plan: ClusterPlan) -> None:
    argv = ray_start(plan.node("linux"), plan.address)

    assert "--head" not in argv
    assert option(argv, "address") == plan.address
    assert option(argv, "num-cpus") == "2"


def test_what_the_plan_leaves_open_is_left_to_ray(plan: ClusterPlan) -> None:
    argv = ray_start(plan.head, plan.address)

    assert option(argv, "memory") == str(2**30)
    assert not any(word.startswith(("--num-cpus", "--num-gpus")) for word in argv)


def test_no_secret_and_no_blank_is_in_the_command(plan: ClusterPlan) -> None:
    environment = replace(plan.head.environment, path=Path("/a b é/.saf/envs/base"))
    argv = ray_start(replace(plan.head, environment=environment), plan.address)

    assert not any("token" in word for word in argv)
    assert not any("é" in word for word in argv)
    assert argv[0] == f"{plan.folder}/envs/{environment.key}/bin/python"


def test_a_start_is_told_from_another_by_its_label(plan: ClusterPlan) -> None:
    argv = ray_start(plan.head, plan.address, "0123.4567")

    assert "saf-run=0123.4567" in option(argv, "labels").split(",")
    assert "saf-run" not in option(ray_start(plan.head, plan.address), "labels")


def process(pid: int, node: str, run: str, role: str) -> dict[str, object]:
    return {"pid": pid, "started": str(pid), "node": node, "run": run, "role": role}


def test_processes_are_put_together_by_start() -> None:
    found = found_nodes(
        [
            process(1, "head", "b", "leader"),
            process(2, "head", "b", "raylet"),
            process(3, "head", "b", "gcs"),
            process(4, "head", "b", "other"),
            process(5, "head", "b", "other"),
            process(6, "head", "a", "other"),
            process(7, "linux", "c", "leader"),
        ]
    )

    whole = Found(
        "head",
        "b",
        {"leader": 1, "raylet": 1, "gcs": 1, "other": 2},
        Started("head", "b", 1, "1"),
    )
    left = Found("head", "a", {"other": 1}, None)
    begun = Found("linux", "c", {"leader": 1}, Started("linux", "c", 7, "7"))
    assert found == [left, whole, begun]
    assert by_node(found) == {"head": whole, "linux": begun}
    assert (whole.whole("head"), left.whole("head"), begun.whole("worker")) == (True, False, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (False, [])),
        ("{", (False, [])),
        ('{"open": true, "dead": []}', (True, [])),
        ('{"error": "OSError: gone"}', (False, [])),
        (
            '{"open": false, "dead": [{"node": "linux", "pid": 1, "tail": "why"}]}',
            (False, [Died("linux", "why")]),
        ),
    ],
)
def test_what_a_wait_gave(text: str, expected: object) -> None:
    assert waited(text) == expected

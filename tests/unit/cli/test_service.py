"""Whom `saf-env service` asks: the hosts of the nodes that are meant, and nobody else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cli.commands import service
from saf_env.cli.context import Context
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.engine import Engine
from saf_env.errors import HostUnreachableError, UsageError
from saf_env.plan.model import ClusterPlan, HostPlan, ImagePlan
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import CommandResult, Transport


class Way:
    """A host over SSH that is what services need, or one that is out of reach."""

    def __init__(self, name: str) -> None:
        self.host, self.name, self.lost, self.asked = name, name, False, 0

    def _ask(self) -> None:
        self.asked += 1
        if self.lost:
            raise HostUnreachableError(f"{self.name}: no route", hint="plug it in")

    def start(self, argv: Sequence[str], **_: Any) -> Any:
        self._ask()
        return SimpleNamespace(printed=lambda: "held\n", poll=lambda: "ended")

    def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
        self._ask()
        said = {'id -un)" "$(pwd)': "1000\nanna\n/home/anna\n", "grep -qF": "linux\n"}
        found = next((text for word, text in said.items() if word in argv[2]), "")
        return CommandResult(tuple(argv), self.name, 0, found, "", 0.1)

    def put(self, *_: Any, **__: Any) -> None:
        self._ask()

    def close(self) -> None:
        """There is no connection."""


class Two:
    """The head on alpha, the other node on beta, and a call on neither of them."""

    def __init__(self, spec: ClusterSpec, plan: ClusterPlan, home: Path) -> None:
        self.ways = {name: Way(name) for name in ("alpha", "beta")}
        plans = {n: HostPlan(n, n, "linux-x86_64", n, None, Path(".saf-env/x")) for n in self.ways}
        runtime = cast(Runtimes, SimpleNamespace(native=SimpleNamespace(find=list, services=set())))
        hosts = Hosts(
            {
                name: Host(plans[name], cast(Transport, way), runtime, cast(Engine, None), Path())
                for name, way in self.ways.items()
            },
            plan.folder,
            {"head": "alpha", "linux": "beta"},
            "alpha",
        )
        places = {"head": "alpha", "linux": "beta"}
        nodes = tuple(replace(node, host=places[node.name]) for node in plan.nodes)
        names = tuple(replace(node, host=places[node.name]) for node in spec.nodes)
        self.context = Context(home, home / "cluster.toml")
        self.plan = replace(plan, hosts=plans, nodes=nodes)
        vars(self.context).update(
            spec=replace(spec, nodes=names),
            plan=self.plan,
            place=home,
            hosts=lambda: hosts,
            fresh_lock=lambda: None,
        )

    def call(self, action: str, *nodes: str) -> None:
        service.run(self.context, argparse.Namespace(action=action, nodes=list(nodes), json=False))


@pytest.fixture
def two(spec: ClusterSpec, plan: ClusterPlan, tmp_path: Path) -> Two:
    return Two(spec, plan, tmp_path)


@pytest.mark.parametrize(
    ("action", "said"),
    [("install", "a reboot brings back: linux"), ("remove", "removed the service of linux")],
)
def test_the_heads_host_may_be_out_of_reach(
    two: Two, action: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    two.ways["alpha"].lost = True
    two.call(action, "linux")
    assert said in capsys.readouterr().out
    assert two.ways["alpha"].asked == 1, "whether another saf-env is at work"


@pytest.mark.parametrize("action", ["install", "remove"])
def test_the_nodes_host_may_not(two: Two, action: str) -> None:
    two.ways["beta"].lost = True
    with pytest.raises(HostUnreachableError, match="beta: no route"):
        two.call(action, "linux")


def test_nobody_is_asked_for_a_container(two: Two) -> None:
    image = ImagePlan("k", "t", "b", two.plan.head.environment, "w")
    head, linux = two.plan.nodes
    nodes = (head, replace(linux, kind="container", image=image))
    vars(two.context)["plan"] = replace(two.plan, nodes=nodes)
    with pytest.raises(UsageError, match="linux need no service"):
        two.call("install", "linux")
    two.call("install")
    assert two.ways["beta"].asked == 0

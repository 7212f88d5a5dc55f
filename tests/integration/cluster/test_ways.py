"""Three hosts that are all this machine, at addresses of their own: real listeners, real calls."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from saf_env.cluster import listeners
from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.cluster.ways import ports_of, tried
from saf_env.engine import Engine
from saf_env.plan.model import HostPlan
from saf_env.transports.local import LocalTransport
from tests.unit.preflight.test_checks import make_node

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has one such address")

ADDRESSES = {"alpha": "127.0.0.2", "beta": "127.0.0.3", "gamma": "127.0.0.4"}
NODES = [
    make_node("head" if host == "alpha" else host, 25000 + 100 * i, host=host, address=address)
    for i, (host, address) in enumerate(ADDRESSES.items())
]
HOSTS = Hosts(
    {
        name: Host(
            HostPlan(name, address, "linux-x86_64", "", None, Path()),
            LocalTransport(name),
            cast(Runtimes, None),
            cast(Engine, None),
            Path(sys.executable),
        )
        for name, address in ADDRESSES.items()
    },
    Path(),
    {},
    "alpha",
)


def closed(ways: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    """Why calls were in vain, by way and kind of port."""
    found = {
        (way["host"], way["node"]): {kind: why for kind, (_, why) in way["ports"].items() if why}
        for way in ways
    }
    return {way: ports for way, ports in found.items() if ports}


def nobody_listens() -> bool:
    def answers(address: str, port: int) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex((address, port)) == 0

    return not any(answers(node.address, p) for node in NODES for p in ports_of(node).values())


def test_three_hosts_reach_each_other_soon_and_nothing_is_left() -> None:
    began = time.monotonic()
    ways, absent = tried(HOSTS, NODES, ())
    assert time.monotonic() - began < 5, "it takes less than one second on a quiet machine"
    assert absent == {}
    assert len(ways) == 6
    assert closed(ways) == {}
    assert all(way["rate"] > 10e6 and 0 < way["ms"] < 100 for way in ways)
    assert nobody_listens()


def test_somebody_elses_service_is_in_the_way() -> None:
    beta = NODES[1]
    with socket.create_server((beta.address, beta.ports.object_manager)):
        ways, _ = tried(HOSTS, NODES, ())
    why = {"object manager": listeners.OTHER}
    assert closed(ways) == {("alpha", "beta"): why, ("gamma", "beta"): why}


def test_a_node_that_runs_is_called_itself() -> None:
    head = NODES[0]
    with contextlib.ExitStack() as running:
        for kind, port in ports_of(head, running=True).items():
            if kind != "GCS":
                running.enter_context(socket.create_server((head.address, port)))
        ways, _ = tried(HOSTS, NODES, ["head"])
    assert closed(ways) == {(host, "head"): {"GCS": "refused"} for host in ("beta", "gamma")}

"""Which ways are tried between hosts, and what is made of the callers' answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.runtimes import Runtimes
from saf_env.cluster.ways import (
    add_ways,
    calling_time,
    listening_time,
    ports_of,
    to_burst,
    to_call,
    to_listen,
    ways_from,
)
from saf_env.engine import Engine
from saf_env.errors import BusyError, HostUnreachableError, NoProgramError, UsageError
from saf_env.plan.model import HostPlan, NodePlan
from saf_env.transports.base import CommandResult, Transport
from tests.unit.preflight.test_checks import make_node


def node(name: str, host: str, first: int, **changes: Any) -> NodePlan:
    return make_node(name, first, host=host, address=f"10.0.0.{len(host)}", **changes)


HEAD, BETA = node("head", "alpha", 6380), node("beta", "beta", 6480)
TWIN, GAMMA = node("twin", "alpha", 6580), node("gamma", "gamma-", 6680)
NODES = [HEAD, TWIN, BETA, GAMMA]


def test_all_that_others_call_is_listened_on_where_nothing_runs_yet() -> None:
    numbers = [port for _, port in to_listen([HEAD], "alpha", ())]
    assert numbers == [6384, 6385, 6386, 6387, 6388, 6389, 6392, 6399, 6380]
    assert to_listen(NODES, "alpha", ["head", "twin"]) == []
    assert {at for at, _ in to_listen(NODES, "beta", ())} == {"10.0.0.4"}


def test_a_node_that_runs_is_called_on_what_it_has_open() -> None:
    assert list(ports_of(HEAD, running=True)) == [
        "node manager",
        "object manager",
        "runtime env agent",
        "dashboard agent's gRPC",
        "GCS",
    ]
    calls = to_call(NODES, "beta", ["head"])
    assert {(name, ours) for name, _, _, _, ours in calls} == {
        ("head", False),
        ("twin", True),
        ("gamma", True),
    }


def test_nobody_is_asked_on_a_port_that_we_could_not_have() -> None:
    taken = {("10.0.0.4", 6485): "other"}
    ours = {kind: ours for _, kind, _, _, ours in to_call([HEAD, BETA], "alpha", (), taken)}
    assert [kind for kind, asked in ours.items() if not asked] == ["object manager"]


def test_no_host_calls_itself() -> None:
    assert {name for name, *_ in to_call(NODES, "alpha", ())} == {"beta", "gamma"}


def test_bursts_go_round() -> None:
    assert list(to_burst(NODES, "alpha", (), {})) == ["beta", "gamma"]
    assert list(to_burst(NODES, "beta", (), {})) == ["gamma", "head"]
    assert list(to_burst(NODES, "beta", ["head"], {})) == ["gamma", "twin"]
    assert list(to_burst(NODES, "beta", (), {("10.0.0.6", 6684): "in use"})) == ["head"]


def test_answers_become_ways() -> None:
    count = len(to_call([HEAD, BETA], "beta", ()))
    calls = [["", 0.5]] * (count - 2) + [["silent", None], ["other", 0.3]]
    answer = {"calls": calls, "rates": [5e7]}
    taken = {("10.0.0.5", 6380): "cannot be listened on: Permission denied"}
    (found,) = ways_from("beta", [HEAD, BETA], (), answer, ["head"], taken)
    assert (found["host"], found["node"], found["address"]) == ("beta", "head", "10.0.0.5")
    assert (found["ms"], found["rate"], found["running"]) == (0.3, 5e7, False)
    assert found["burst"]
    assert found["ports"]["node manager"] == [6384, ""]
    assert found["ports"]["last worker"] == [6399, "silent"]
    assert found["ports"]["GCS"] == [6380, "cannot be listened on: Permission denied"]


class Wire:
    """One host, on which nothing is amiss, or what ``error`` says; it notes what happens."""

    def __init__(self, log: list[str], error: Exception | None = None) -> None:
        self.host, self.log, self.error = "x", log, error

    def start(self, _: Sequence[str], *, env: Mapping[str, str], stdin: str) -> Wire:
        if self.error:
            raise self.error
        request = json.loads(stdin.splitlines()[1])
        self.log.append(f"listen {len(request['ports'])}")
        return self

    def printed(self) -> str:
        return '{"taken": []}\n'

    def stop(self) -> None:
        self.log.append("stop")

    def run(self, argv: Sequence[str], *, stdin: str, **_: object) -> CommandResult:
        request = json.loads(stdin.splitlines()[1])
        assert not any(request["question"] in word for word in argv), "others may read it there"
        self.log.append(f"call {len(request['targets'])}")
        calls = [["", 1.0]] * len(request["targets"])
        answer = {"calls": calls, "rates": [1e8] * len(request["bursts"])}
        return CommandResult(tuple(argv), self.host, 0, json.dumps(answer), "", 0.1)


def hosts_of(wires: Mapping[str, Wire]) -> Hosts:
    made = {
        name: Host(
            HostPlan(name, name, "linux-x86_64", name, None, Path()),
            cast(Transport, wire),
            cast(Runtimes, None),
            cast(Engine, None),
            Path("/python"),
        )
        for name, wire in wires.items()
    }
    return Hosts(made, Path(), {}, "alpha")


def tried(nodes: list[NodePlan], wires: Mapping[str, Wire], **more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {n.name: {"facts": {}, "unknown": {}} for n in nodes}
    more = {"running": (), "lost": {}, **more}
    add_ways(hosts_of(wires), facts, nodes, notify=lambda _: None, **more)
    return facts


def test_all_listen_before_anybody_calls_and_all_are_stopped() -> None:
    log: list[str] = []
    facts = tried([HEAD, BETA], {"alpha": Wire(log), "beta": Wire(log)})
    assert sorted(log[:2]) == ["listen 8", "listen 9"]
    assert sorted(log[2:4]) == ["call 8", "call 9"]
    assert log[4:] == ["stop", "stop"]
    seen = facts["beta"]["facts"]["ways"]
    assert {(w["host"], w["node"]) for w in seen["ways"]} == {("beta", "head"), ("alpha", "beta")}


def test_what_nobody_asks_for_is_not_tried() -> None:
    log: list[str] = []
    wires = {"alpha": Wire(log), "beta": Wire(log)}
    assert tried([HEAD, BETA], wires, only=["disk"])["beta"]["facts"] == {}
    alone = tried([HEAD, TWIN], wires)
    assert alone["head"]["facts"]["ways"] == {"ways": [], "absent": {}}
    away = dataclasses.replace(BETA, network="tailscale")
    tried([HEAD, away], wires)
    assert log == []


def test_where_all_runs_nothing_listens() -> None:
    log: list[str] = []
    facts = tried([HEAD, BETA], {"alpha": Wire(log), "beta": Wire(log)}, running=["head", "beta"])
    assert sorted(log) == ["call 4", "call 5"]
    assert all(way["running"] for way in facts["head"]["facts"]["ways"]["ways"])


@pytest.mark.parametrize("error", [HostUnreachableError("no route"), NoProgramError("no route")])
def test_a_host_that_cannot_is_passed_over(error: Exception) -> None:
    log: list[str] = []
    wires = {"alpha": Wire(log), "beta": Wire(log), "gamma-": Wire(log, error)}
    facts = tried([HEAD, BETA, GAMMA], wires)
    assert facts["gamma"]["unknown"]["ways"] == "no route"
    assert facts["head"]["facts"]["ways"]["absent"] == {"gamma-": "no route"}
    assert {w["node"] for w in facts["head"]["facts"]["ways"]["ways"]} == {"head", "beta"}
    assert log.count("stop") == 2


@pytest.mark.parametrize("line", ["welcome", "5", "{}", '{"taken": [1]}', '{"taken": null}'])
def test_a_host_that_says_something_else_is_passed_over(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    odd = Wire(log)
    monkeypatch.setattr(odd, "printed", lambda: f"{line}\n")
    facts = tried([HEAD, BETA], {"alpha": Wire(log), "beta": odd})
    assert facts["beta"]["unknown"]["ways"] == f"nothing listens there, and it says: {line}"
    assert log.count("stop") == 2


class Lock:
    """Another command holds the cluster, or nobody does."""

    def __init__(self, log: list[str], error: Exception | None = None) -> None:
        self.log, self.error = log, error

    def __enter__(self) -> None:
        if self.error:
            raise self.error
        self.log.append("hold")

    def __exit__(self, *_: object) -> None:
        self.log.append("free")


def test_the_cluster_is_held_while_its_ports_are() -> None:
    log: list[str] = []
    wires = {"alpha": Wire(log), "beta": Wire(log)}
    tried([HEAD, BETA], wires, alone=Lock(log))
    assert (log[0], log[-1]) == ("hold", "free")
    assert log.count("stop") == 2
    log.clear()
    tried([HEAD, TWIN], wires, alone=Lock(log))
    tried([HEAD, BETA], wires, alone=Lock(log), only=["disk"])
    assert log == [], "there is nothing to try"


@pytest.mark.parametrize("error", [BusyError("another is at work"), UsageError("read-only")])
def test_where_the_cluster_cannot_be_held_nothing_is_tried(error: Exception) -> None:
    log: list[str] = []
    wires = {"alpha": Wire(log), "beta": Wire(log)}
    facts = tried([HEAD, BETA], wires, alone=Lock(log, error))
    assert log == []
    assert [known["unknown"]["ways"] for known in facts.values()] == [str(error)] * 2


def test_who_listens_does_so_until_the_last_batch_of_hosts_has_called() -> None:
    assert listening_time(16, 160) >= calling_time(160, 2) + 15
    assert listening_time(17, 160) == 2 * listening_time(16, 160)
    assert listening_time(16, 1600) > listening_time(16, 160)
    seen: list[float] = []

    class Noting(Wire):
        def start(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str) -> Wire:
            seen.append(json.loads(stdin.splitlines()[1])["seconds"])
            return super().start(argv, env=env, stdin=stdin)

    tried([HEAD, BETA], {"alpha": Noting([]), "beta": Noting([])})
    assert seen == [listening_time(2, 17)] * 2


def test_a_host_that_was_lost_before_is_told_of() -> None:
    log: list[str] = []
    wires = {"alpha": Wire(log), "beta": Wire(log)}
    facts = tried([HEAD, BETA], wires, lost={"gamma-": "it sleeps"})
    assert facts["head"]["facts"]["ways"]["absent"] == {"gamma-": "it sleeps"}


def test_an_interrupted_trial_leaves_nothing_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def interrupted(*_: object, **__: object) -> CommandResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(Wire, "run", interrupted)
    monkeypatch.setattr(Wire, "close", lambda _: None, raising=False)
    with pytest.raises(KeyboardInterrupt):
        tried([HEAD, BETA], {"alpha": Wire(log), "beta": Wire(log)})
    assert log.count("stop") == 2

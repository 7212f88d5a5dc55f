"""The ways between the hosts of a cluster, tried before Ray needs them.

On every host something listens on the ports that its nodes will have; then all hosts call each
other side by side. A node that runs is called on its own ports. What came of it is the fact
``ways`` of every node, for :mod:`saf_env.preflight.ways`.

Ways between nodes of one host are not tried: no cable and, as a rule, no firewall is in them. Nor
are nodes in a network of the tailnet: before they run, nobody has their address. The dashboard is
for this machine only. A container's ports are tried where they are published, on its host.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env.cluster.hosts import AT_ONCE, Host, Hosts
from saf_env.errors import BusyError, HostUnreachableError, SafEnvError, UsageError
from saf_env.plan.model import NodePlan
from saf_env.preflight.ways import GCS, IDS
from saf_env.transports.base import Running
from saf_env.transports.script import script

PATIENCE = 2.5
"""Seconds that a call gets: a first packet that is lost is sent again after one (RFC 6298)."""

_STARTING = 15.0
"""Seconds until something listens: a Python starts."""

_BURSTS = 2
"""Hosts that one sends a burst to: with three hosts all, with more those that come after it."""

_LISTENERS = Path(__file__).with_name("listeners.py")
_PLAIN = {"PATH": "/usr/bin:/bin"}

_OF_NODE = {
    "node_manager": "node manager",
    "object_manager": "object manager",
    "runtime_env_agent": "runtime env agent",
    "dashboard_agent_listen": "dashboard agent",
    "dashboard_agent_grpc": "dashboard agent's gRPC",
    "metrics_export": "metrics",
    "min_worker": "first worker",
    "max_worker": "last worker",
    "gcs": GCS,
}
"""The ports that others call, in words."""

_OF_RUNNING = ("node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc", "gcs")
"""Those that a node has open on its address all the time."""

Notify = Callable[[str], None]


def add_ways(
    hosts: Hosts,
    facts: Mapping[str, dict[str, Any]],
    nodes: Sequence[NodePlan],
    running: Collection[str],
    *,
    lost: Mapping[str, str],
    only: Collection[str] = (),
    alone: contextlib.AbstractContextManager[None] | None = None,
    notify: Notify,
) -> None:
    """Try the ways between the hosts of ``nodes``, and add the fact ``ways`` to ``facts``.

    Nothing is tried where no check of ``only`` asks for it, or all nodes are on one host.

    Args:
        hosts: of the cluster.
        facts: by node name; of nodes that are judged.
        nodes: those that take part.
        running: names of those that are up.
        lost: hosts that are out of reach, with the reason.
        only: ids of the checks that will be made; empty means all.
        alone: keeps other commands from the ports while they are tried. Where it cannot be entered
            nothing is tried, and why is told. None where the caller sees to that.
        notify: gets a line when something is tried.
    """
    if only and not IDS & {*only}:
        return
    nodes = [node for node in nodes if node.network != "tailscale"]
    ways: list[dict[str, Any]] = []
    absent = dict(lost)
    if len(names := {node.host for node in nodes}) > 1:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone or contextlib.nullcontext())
            except (BusyError, UsageError) as error:
                absent |= dict.fromkeys(names, error.message)
            else:
                notify("trying the ways between the hosts")
                ways, without = tried(hosts, nodes, running)
                absent |= without
    where = {node.name: node.host for node in nodes}
    for name, known in facts.items():
        host = where.get(name)
        if host is None or host in absent:
            known["unknown"]["ways"] = absent.get(host or "", "its host took no part")
        else:
            known["facts"]["ways"] = ways_of(name, host, ways, absent)


def ways_of(
    name: str, host: str, ways: Sequence[Mapping[str, Any]], absent: Mapping[str, str]
) -> dict[str, Any]:
    """The fact ``ways`` of the node ``name`` on ``host``.

    Returns:
        ``ways``, those from its host and those to it; and ``absent``, the hosts that took no part,
        with the reason.
    """
    own = [way for way in ways if way["host"] == host or way["node"] == name]
    return {"ways": own, "absent": dict(absent)}


def tried(
    hosts: Hosts, nodes: Sequence[NodePlan], running: Collection[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Try all ways between the hosts of ``nodes``.

    Returns:
        The ways, see :func:`ways_from`; and the hosts that took no part, with the reason.
    """
    words = {
        "question": secrets.token_hex(16),
        "answer": secrets.token_hex(16),
        "patience": PATIENCE,
    }
    names = list(dict.fromkeys(node.host for node in nodes))
    wanted = {name: to_listen(nodes, name, running) for name in names}
    seconds = listening_time(len(names), sum(len(ports_of(node)) for node in nodes))
    with _listening(hosts, wanted, words, seconds) as (taken, absent):
        there = [node for node in nodes if node.host not in absent]
        callers = [name for name in names if name not in absent]
        bursts = {name: to_burst(there, name, running, taken) for name in callers}
        calls = {name: to_call(there, name, running, taken) for name in callers}

        def one(host: Host) -> dict[str, Any] | str:
            targets = [target[2:] for target in calls[host.plan.name]]
            places = list(bursts[host.plan.name].values())
            request = {"op": "call", **words, "targets": targets, "bursts": places}
            return _called(host, request)

        answers, lost = hosts.ask(callers, one)
    absent |= {name: error.message for name, error in lost.items()}
    absent |= {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    ways = [
        way
        for name, answer in answers.items()
        if not isinstance(answer, str)
        for way in ways_from(name, there, running, answer, list(bursts[name]), taken)
    ]
    return ways, absent


def to_listen(
    nodes: Sequence[NodePlan], host: str, running: Collection[str]
) -> list[tuple[str, int]]:
    """Address and number of the ports of ``host`` that nobody listens on yet."""
    idle = [node for node in nodes if node.host == host and node.name not in running]
    return [(node.address, port) for node in idle for port in ports_of(node).values()]


def to_call(
    nodes: Sequence[NodePlan],
    host: str,
    running: Collection[str],
    taken: Collection[tuple[str, int]] = (),
) -> list[tuple[str, str, str, int, bool]]:
    """What ``host`` calls: node, kind of port, address, number, and whether one of us is there."""
    return [
        (
            node.name,
            kind,
            node.address,
            port,
            node.name not in running and (node.address, port) not in taken,
        )
        for node in nodes
        if node.host != host
        for kind, port in ports_of(node, running=node.name in running).items()
    ]


def to_burst(
    nodes: Sequence[NodePlan],
    host: str,
    running: Collection[str],
    taken: Mapping[tuple[str, int], str],
) -> dict[str, tuple[str, int]]:
    """Where ``host`` sends bursts: node, and address and number of its first port.

    The hosts that come after it, so that each gets one burst at a time.
    """
    names = list(dict.fromkeys(node.host for node in nodes))
    at = names.index(host)
    found: dict[str, tuple[str, int]] = {}
    for name in (names[at + 1 :] + names[:at])[:_BURSTS]:
        for node in nodes:
            place = (node.address, node.ports.node_manager)
            if node.host == name and node.name not in running and place not in taken:
                found[node.name] = place
                break
    return found


def ports_of(node: NodePlan, *, running: bool = False) -> dict[str, int]:
    """The ports of ``node`` that others call, by kind."""
    numbers = {words: getattr(node.ports, name) for name, words in _OF_NODE.items()}
    if running:
        numbers = {_OF_NODE[name]: getattr(node.ports, name) for name in _OF_RUNNING}
    return {kind: number for kind, number in numbers.items() if number is not None}


def ways_from(
    host: str,
    nodes: Sequence[NodePlan],
    running: Collection[str],
    answer: Mapping[str, Any],
    bursts: Sequence[str],
    taken: Mapping[tuple[str, int], str],
) -> Iterator[dict[str, Any]]:
    """The ways from ``host``, one for each node elsewhere, out of what the callers there say.

    Args:
        host: who called.
        nodes: all that take part.
        running: names of those that are up.
        answer: of :func:`saf_env.cluster.listeners.call`.
        bursts: names of the nodes that bursts were sent to.
        taken: address and number of ports that could not be listened on, with the reason.

    Returns:
        Each with ``host``, ``node``, ``address``, ``running``; ``ports``: by kind a pair of number
        and why the call was in vain, empty when it was not; ``ms``: the shortest round trip, or
        None; ``burst``: whether one was sent; ``rate``: bytes a second that arrived, or None.
    """
    rates = dict(zip(bursts, answer["rates"], strict=True))
    targets = to_call(nodes, host, running)
    for node in nodes:
        pairs = zip(targets, answer["calls"], strict=True)
        own = [(target, said) for target, said in pairs if target[0] == node.name]
        if own:
            times = [ms for _, (_, ms) in own if ms is not None]
            yield {
                "host": host,
                "node": node.name,
                "address": node.address,
                "running": node.name in running,
                "ports": {
                    kind: [number, taken.get((address, number), why)]
                    for (_, kind, address, number, _), (why, _) in own
                },
                "ms": min(times, default=None),
                "burst": node.name in rates,
                "rate": rates.get(node.name),
            }


def listening_time(hosts: int, ports: int) -> float:
    """The longest that anything listens, in seconds: it is stopped long before.

    Args:
        hosts: how many; so many at once begin to listen, and then call, see :data:`AT_ONCE`.
        ports: how many one of them calls at most.
    """
    return math.ceil(hosts / AT_ONCE) * (_STARTING + calling_time(ports, _BURSTS))


def calling_time(ports: int, bursts: int) -> float:
    """The longest that one host calls so many ``ports`` and sends ``bursts``, in seconds."""
    return 20.0 + 2 * PATIENCE * (ports / 64 + bursts + 1)


@contextlib.contextmanager
def _listening(
    hosts: Hosts,
    wanted: Mapping[str, list[tuple[str, int]]],
    words: Mapping[str, Any],
    seconds: float,
) -> Iterator[tuple[dict[tuple[str, int], str], dict[str, str]]]:
    """Listen on the ports ``wanted`` by host, as long as the block lasts, at most ``seconds``.

    Yields:
        Ports that could not be had, with the reason; and hosts where nothing listens, with it.
    """
    begun: dict[str, Running] = {}

    def one(host: Host) -> list[Any] | str:
        name = host.plan.name
        request = {"op": "listen", **words, "ports": wanted[name], "seconds": seconds}
        try:
            argv, stdin = script(host.python, _LISTENERS, request)
            begun[name] = host.transport.start(argv, env=_PLAIN, stdin=stdin)
            return _taken(begun[name])
        except HostUnreachableError:
            raise
        except SafEnvError as error:
            return error.message

    try:
        # Where all nodes run there is nothing to listen on.
        answers, lost = hosts.ask((name for name, ports in wanted.items() if ports), one)
        absent = {name: error.message for name, error in lost.items()}
        absent |= {name: why for name, why in answers.items() if isinstance(why, str)}
        heard = [found for found in answers.values() if not isinstance(found, str)]
        yield {(at, port): why for found in heard for at, port, why in found}, absent
    finally:
        hosts.ask(begun, lambda host: begun[host.plan.name].stop())


def _taken(running: Running) -> list[Any] | str:
    """The ports that cannot be had, once it listens on the others; or why it does not."""
    end = time.monotonic() + _STARTING
    while not (line := running.printed()).endswith("\n"):
        if (done := running.poll()) is not None:
            return f"nothing listens there: {done.tail(2) or 'it ended'}"
        if time.monotonic() > end:
            return f"nothing listens there after {_STARTING:.0f} s"
        time.sleep(0.005)
    try:
        return [(at, port, why) for at, port, why in json.loads(line)["taken"]]
    except (KeyError, TypeError, ValueError):
        return f"nothing listens there, and it says: {line.strip()[:200]}"


def _called(host: Host, request: Mapping[str, Any]) -> dict[str, Any] | str:
    """What the callers on ``host`` say, or why they say nothing."""
    argv, stdin = script(host.python, _LISTENERS, request)
    longest = calling_time(len(request["targets"]), len(request["bursts"]))
    try:
        done = host.transport.run(argv, env=_PLAIN, timeout=longest, stdin=stdin)
        answer: dict[str, Any] = json.loads(done.stdout) if done.ok else {}
    except HostUnreachableError:
        raise
    except (SafEnvError, ValueError) as error:
        return str(error)
    return answer or f"nobody calls from there: {done.tail(2)}"

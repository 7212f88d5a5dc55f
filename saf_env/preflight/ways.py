"""Checks of the ways between hosts: every port that Ray needs, both ways, how fast.

They judge the fact ``ways``, see :func:`saf_env.cluster.ways.add_ways`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saf_env.plan.model import NodePlan
from saf_env.platforms import PLATFORMS
from saf_env.preflight.base import (
    Case,
    Check,
    UnknownFactError,
    Verdict,
    fail,
    listed,
    ok,
    warn,
)

GCS = "GCS"
"""The kind of port that is the head's only, and that ``head-reachable`` is about."""

LATENCY_WARNS = 20.0
"""Milliseconds of a round trip. Ray names no limit; Apache Kudu, whose nodes talk as much, has this
as the most within a cluster (Known issues, "Cluster management limitations")."""

BANDWIDTH_WARNS = 10e6
"""Bytes a second: what Ethernet of 100 Mbit/s carries, less its headers and some room."""

_WORDS = {
    "refused": "refused",
    "silent": "no answer",
    "other": "another service answers",
}

Way = Mapping[str, Any]


def head_reachable(case: Case) -> Verdict:
    """The node's host reaches the GCS port of the head."""
    head, host = case.cluster.head, case.node.host
    if host == head.host:
        return ok("the head is on the same host")
    if head.network == "tailscale":
        return ok("not tried: the head has its address only once it runs")
    seen = case.fact("ways")
    way = next((w for w in seen["ways"] if (w["host"], w["node"]) == (host, head.name)), None)
    if way is None:
        raise UnknownFactError(seen["absent"].get(head.host, "the head's host took no part"))
    number, why = way["ports"][GCS]
    if not why:
        text = "the head's GCS answers" if way["running"] else "the head's GCS port can be reached"
        return ok(text, f"{way['ms']:.1f} ms")
    closed = {**way, "ports": {GCS: (number, why)}}
    doubt, remedy = _doubt(case, closed), _remedy(case, [closed], f"{number}")
    where = f"the head's GCS at {way['address']}, port {number}"
    if doubt:
        return warn(f"host {host} may not reach {where}", _word(why), _unsure([doubt], remedy))
    return fail(f"host {host} does not reach {where}", _word(why), remedy)


def peer_matrix(case: Case) -> Verdict:
    """The node's host reaches the nodes of all others, and they reach it, on every fixed port."""
    if _single(case):
        return ok("one host")
    seen = case.fact("ways")
    ways: Sequence[Way] = seen["ways"]
    without = [f"without {host}: {why}" for host, why in seen["absent"].items()]
    if not ways:
        return ok("no other host takes part", listed(without))
    blocked = [{**way, "ports": _closed(way)} for way in ways if _closed(way)]
    if not blocked:
        text = f"{_between(ways)} {_are(ways)} open"
        return ok(text, listed(without) or _one_way(case, ways))
    told = [_ports(way) for way in ways if _closed(way)]
    evidence = "; ".join(told[:5]) + (f" and {len(told) - 5} more" if told[5:] else "")
    doubts, remedy = [_doubt(case, way) for way in blocked], _remedies(case, blocked)
    if all(doubts):
        return warn(f"{_between(blocked)} may be closed", evidence, _unsure(doubts, remedy))
    return fail(f"{_between(blocked)} {_are(blocked)} closed", evidence, remedy)


def _between(ways: Sequence[Way]) -> str:
    return f"{len(ways)} way{'' if len(ways) == 1 else 's'} between hosts"


def _are(ways: Sequence[Way]) -> str:
    return "is" if len(ways) == 1 else "are"


def _one_way(case: Case, ways: Sequence[Way]) -> str:
    """That nobody was asked to call the node's host, where that is so: it joins by itself."""
    if any(case.cluster.node(way["node"]).host == case.node.host for way in ways):
        return ""
    return (
        "ways to this host are not tried from here; `saf-env check` where the cluster is run from "
        "tries them"
    )


def _doubt(case: Case, way: Way) -> str:
    """Why a way that is closed now may be open to the node itself; empty where it is closed."""
    node = case.cluster.node(way["node"])
    if way["running"] or {why for _, why in way["ports"].values()} - {"refused", "silent"}:
        return ""
    if _os(case, node) == "macos":
        return (
            f"the firewall of a Mac decides by program, and what listened on {node.host} was "
            f"another one than {node.name} will be"
        )
    if node.network == "bridge":
        return (
            f"the ports of a container go by other rules of the firewall of {node.host} than what "
            f"listened in place of {node.name} (Docker opens them, and ufw does not see them)"
        )
    return ""


def _unsure(doubts: Sequence[str], remedy: str) -> str:
    """What to do about ways that may be open all the same."""
    why = "; ".join(dict.fromkeys(doubts))
    return f"{why}. Where they stay closed once the nodes run: {remedy}"


def _single(case: Case) -> bool:
    return len({node.host for node in case.cluster.nodes}) < 2


def _closed(way: Way) -> dict[str, tuple[int, str]]:
    """Number and reason by kind of the ports that nobody came through to, the GCS's left out."""
    ports = {kind: (number, why) for kind, (number, why) in way["ports"].items() if kind != GCS}
    return {kind: (number, why) for kind, (number, why) in ports.items() if why}


def _ports(way: Way) -> str:
    """A way and its closed ports, by what was seen of them."""
    closed, total = _closed(way), sum(kind != GCS for kind in way["ports"])
    reasons = dict.fromkeys(why for _, why in closed.values())
    texts = []
    for reason in reasons:
        names = [f"{number} ({kind})" for kind, (number, why) in closed.items() if why == reason]
        which = f"all {total} ports tried" if len(names) == total else listed(names, 9)
        texts.append(f"{_word(reason)} on {which}")
    return f"{way['host']} to {way['node']}: {', '.join(texts)}"


def _word(why: str) -> str:
    return _WORDS.get(why, why)


def _remedies(case: Case, blocked: Sequence[Way]) -> str:
    """What is to be done about closed ways, node by node that they lead to.

    Args:
        case: as ever.
        blocked: the ways, with their closed ports only.
    """
    by_node: dict[str, list[Way]] = {}
    for way in blocked:
        by_node.setdefault(way["node"], []).append(way)
    hints = [_remedy(case, ways, _block(case.cluster.node(name))) for name, ways in by_node.items()]
    return "; ".join(dict.fromkeys(hints))


def _block(node: NodePlan) -> str:
    return f"{node.ports.node_manager}-{node.ports.max_worker}"


def _remedy(case: Case, ways: Sequence[Way], ports: str) -> str:
    """What opens ``ports`` of a node to the hosts that ``ways`` to it come from."""
    node = case.cluster.node(ways[0]["node"])
    reasons = {why for way in ways for _, why in way["ports"].values() if why}
    if not reasons & {"refused", "silent"}:
        if "other" in reasons:
            return (
                f"end what answers at {node.address} in place of {node.name}: a program on its "
                f"ports {ports} (ports-free names it), or a proxy or VPN on the way"
            )
        return (
            f"see that {_callers(case, ways)} has a way to {node.address}, and that this is the "
            f"address of host {node.host}"
        )
    if ways[0]["running"] and reasons == {"refused"}:
        return (
            f"nothing listens there: `saf-env up {node.name}`, where the cluster is run from, "
            "brings it up; where it is up, a firewall sends others away"
        )
    sources = [case.cluster.hosts[way["host"]].address for way in ways]
    text = f"open TCP ports {ports} of host {node.host} to {listed(sources)}"
    if _os(case, node) == "macos":
        return (
            f"{text}: in System Settings > Network > Firewall > Options, let in "
            f"{_programs(case, node)}"
        )
    colon = ports.replace("-", ":")
    return (
        f"{text}: `sudo ufw allow proto tcp from {sources[0]} to any port {colon}`, or `sudo "
        f'firewall-cmd --add-rich-rule=\'rule family="{_family(sources[0])}" source '
        f'address="{sources[0]}" port port="{ports}" protocol="tcp" accept\'`, and what firewalls '
        "are between them"
    )


def _programs(case: Case, node: NodePlan) -> str:
    """What listens for a node on a Mac, as its firewall knows programs: by their paths."""
    if node.kind == "container":
        return "what publishes the ports of containers (Docker Desktop, OrbStack, Colima)"
    known = case.peers.get(node.name, {"facts": {}})["facts"]
    paths = [path for path, _ in known.get("firewall", {}).get("programs", ())]
    return listed(paths) or f"python, raylet and gcs_server of {node.environment.path}"


def _callers(case: Case, ways: Sequence[Way]) -> str:
    return f"host {listed(list(dict.fromkeys(way['host'] for way in ways)))}"


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"


def _os(case: Case, node: NodePlan) -> str:
    return PLATFORMS[case.cluster.host_of(node).platform].os


def latency(case: Case) -> Verdict:
    """A round trip from the node's host to every other one is short."""
    times = _best(case, "ms", min)
    if times is None:
        return ok("no other host takes part")
    slow = [f"{time:.1f} ms to {host}" for host, time in times.items() if time > LATENCY_WARNS]
    if slow:
        return warn(
            f"other hosts are more than {LATENCY_WARNS:.0f} ms away",
            listed(slow),
            f"{_NEARER}; small tasks wait for each of these round trips",
        )
    return ok(f"other hosts are at most {max(times.values()):.1f} ms away")


def bandwidth(case: Case) -> Verdict:
    """What the node's host sends to others arrives fast enough."""
    rates = _best(case, "rate", max)
    if rates is None:
        return ok("no other host takes part, or its nodes run already")
    slow = [
        f"{rate / 1e6:.1f} MB/s to {host}" for host, rate in rates.items() if rate < BANDWIDTH_WARNS
    ]
    if slow:
        return warn(
            f"less than {BANDWIDTH_WARNS / 1e6:.0f} MB/s to other hosts",
            listed(slow),
            f"{_NEARER}; what tasks hand to each other goes this way",
        )
    return ok(f"at least {min(rates.values()) / 1e6:.0f} MB/s to other hosts")


def mtu(case: Case) -> Verdict:
    """What the node's host sends in large packets arrives at others."""
    if _single(case):
        return ok("one host")
    ways = [way for way in case.fact("ways")["ways"] if way["host"] == case.node.host]
    # Where a port is closed, nothing can be said of packets.
    sent = [w for w in ways if w["burst"] and not any(why for _, why in w["ports"].values())]
    lost = [way for way in sent if way["rate"] is None]
    if not lost:
        return ok("large packets arrive" if sent else "nothing was sent to other hosts")
    return warn(
        "large packets do not arrive at other hosts",
        listed([f"{way['host']} to {way['node']}: connected, and nothing more" for way in lost]),
        f"see how large they may be, with `ping -M do -s 1472 {lost[0]['address']}` on the host "
        f"(on a Mac `ping -D -s 1472`) and smaller numbers: every network on the way has to carry "
        "what its ends send. Give the interface a smaller MTU (`sudo ip link set dev NAME mtu "
        "1280`), or have firewalls let ICMP through",
    )


_NEARER = (
    "connect the hosts by cable, and where they meet through a tailnet see with `tailscale status` "
    "that they do so directly and not through a relay"
)


def _best(case: Case, what: str, better: Any) -> dict[str, float] | None:
    """The best of what was measured from the node's host, by host; None where nothing was tried.

    Raises:
        UnknownFactError: no way lets anything through.
    """
    if _single(case):
        return None
    seen = case.fact("ways")
    found: dict[str, list[float]] = {}
    ways = [way for way in seen["ways"] if way["host"] == case.node.host]
    for way in ways:
        if way[what] is not None:
            found.setdefault(case.cluster.node(way["node"]).host, []).append(way[what])
    if not found and any(not way["running"] for way in ways):
        raise UnknownFactError("nothing gets through")
    return {host: better(values) for host, values in found.items()} or None


def _placed(node: NodePlan) -> bool:
    """Whether a node has an address before it runs."""
    return node.network != "tailscale"


CHECKS = (
    Check(
        "head-reachable",
        "cluster",
        "fail",
        "a way to the head's GCS",
        head_reachable,
        "Every node registers at the head's GCS and asks it for all others. Before the head runs, "
        "something listens on that port for the moment; a head that runs is called itself. Of a "
        "head on a Mac that does not run yet, a closed way is a warning: its firewall decides by "
        "program, and another one listened.",
        "Open the port to the host that is named, by the command that is shown, or correct the "
        "head's address in the cluster file.",
        _placed,
    ),
    Check(
        "peer-matrix",
        "cluster",
        "fail",
        "ways between all hosts, both ways, on every port",
        peer_matrix,
        "Ray's nodes, their agents and workers call each other directly. Before they run, "
        "something listens on their ports for a moment (node manager, object manager, agents, "
        "metrics, the first and the last of the workers'), and every host calls all others. What "
        "was refused is told from silence, as of a firewall, and from the answer of another "
        "service. Nodes that run are called on the ports that they have open. Before they run, a "
        "closed way to a Mac, whose firewall decides by program, or to a container, whose ports "
        "Docker opens past ufw, is a warning only: another program listened there. Hosts that "
        "cannot be tried are named. A host that joins from its own side tries the way to the head. "
        "Nodes in a network of the tailnet have no address before they run, and are left out.",
        "Open the ports to the hosts that are named, by the commands that are shown, or end what "
        "answers in place of the node.",
        _placed,
    ),
    Check(
        "latency",
        "cluster",
        "warn",
        "hosts that are near each other",
        latency,
        "Small tasks wait for round trips. The shortest of several from host to host is taken; "
        "more than 20 ms, the most that Apache Kudu recommends within a cluster, is a warning.",
        "Connect the hosts by cable; in a tailnet, see with `tailscale status` that they meet "
        "directly.",
        _placed,
    ),
    Check(
        "bandwidth",
        "cluster",
        "warn",
        "10 MB/s between hosts",
        bandwidth,
        "Objects go from node to node. A burst of at most 8 MB, or 0.2 s, is sent from each host "
        "to the two after it, and what arrives is counted; less than 10 MB/s (about 100 Mbit/s) is "
        "a warning. Nodes that run already are not sent any.",
        "Connect the hosts by cable; in a tailnet, see with `tailscale status` that they meet "
        "directly.",
        _placed,
    ),
    Check(
        "mtu",
        "cluster",
        "warn",
        "packets that are not too large for the way",
        mtu,
        "A tunnel or a switch that carries smaller packets than the hosts send, and a firewall "
        "that keeps this from being told, let connections open and swallow what matters. Looked at "
        "is whether anything of the burst of `bandwidth` arrives where all ports are open.",
        "A smaller MTU on the hosts' interfaces, or firewalls that let ICMP through.",
        _placed,
    ),
)
IDS = frozenset(check.id for check in CHECKS)

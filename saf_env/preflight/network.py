"""Checks of names and ports: names that lead to their nodes, ports free and disjoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saf_env.plan.model import NodePlan
from saf_env.plan.names import host_names, hosts_command, hosts_lines
from saf_env.preflight.base import (
    Case,
    Check,
    UnknownFactError,
    Verdict,
    fail,
    in_container,
    listed,
    ok,
    warn,
)

REDIS_PORT = 6379

ENGINE_COMMANDS = {"docker-proxy", "dockerd", "rootlesskit", "com.docker.backend"[:15]}
"""Who holds the ports that an engine publishes, as Linux names processes: 15 letters."""


def address(case: Case) -> Verdict:
    """What the other nodes reach the host by leads to the host itself, there too."""
    seen = case.fact("address")
    wanted, found, own = seen["address"], seen["resolved"], seen["own"]
    correct = f"correct the address of host {case.node.host} in the cluster file"
    if seen["outgoing"]:
        correct += f"; it reaches the others from {listed(seen['outgoing'])}"
    if not found:
        return fail(f"{wanted} is not known on the host itself", _not_own(seen), correct)
    if len(case.cluster.hosts) > 1 and (inward := [a for a in found if _is_loopback(a)]):
        return _inward(case, wanted, inward, correct)
    if not own:
        leads = "" if wanted in found else f" is {listed(found)}, which"
        return fail(f"{wanted}{leads} is not an address of this host", _not_own(seen), correct)
    for other, there in case.of_hosts("address").items():
        if other != case.node.host and (shared := sorted({*own} & {*there["own"]})):
            return fail(f"host {other} has the same address", listed(shared), correct)
    if foreign := [a for a in found if a not in own]:
        where = f"{listed(foreign)} on {case.node.host}"
        return warn(f"{wanted} also leads elsewhere", where, correct)
    return ok(f"{wanted} is the host's own", "" if wanted in own else listed(own))


def _not_own(seen: Mapping[str, Any]) -> str:
    """Why no port can be opened at the host's address; empty where it is the host's own."""
    if not seen["resolved"]:
        return "the name does not resolve there"
    return "" if seen["own"] else "nothing can listen on it there"


def _inward(case: Case, wanted: str, inward: Sequence[str], correct: str) -> Verdict:
    """An address by which only the host itself finds itself."""
    host = case.node.host
    if wanted not in (*inward, "localhost"):
        correct = (
            f"take {wanted} out of the line of {inward[0]} in /etc/hosts on {host}, or give the "
            "host an address instead of a name in the cluster file"
        )
    where = f"on {host} it is {listed(inward)}, of the loopback interface: Ray would listen there"
    return fail(f"no other host could reach {host} by {wanted}", where, correct)


def _is_loopback(text: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(text.partition("%")[0]).is_loopback


def advertised_name(case: Case) -> Verdict:
    """Every name that a node of the cluster advertises has its planned address on this host."""
    wanted = host_names(case.cluster)
    if not wanted:
        return ok("no name is needed")
    seen = case.fact("names")
    found = {name: seen["addresses"].get(name, []) for name in wanted}
    others = {name: [a for a in there if a != wanted[name]] for name, there in found.items()}
    wrong = {name: addresses for name, addresses in others.items() if addresses}
    missing = [name for name, there in found.items() if wanted[name] not in there]
    if not wrong and not missing:
        return ok(f"{len(wanted)} names lead to their hosts")
    evidence = [f"{name} is {listed(there)}, not {wanted[name]}" for name, there in wrong.items()]
    evidence += [f"{name} is not known" for name in missing if name not in wrong]
    hint = "; ".join(_remedies(case, [*wrong], missing, writable=seen["writable"]))
    native = any(n.kind == "native" and n.host == case.node.host for n in case.cluster.nodes)
    if native:
        return fail("names of nodes do not lead to them", listed(evidence), hint)
    return warn("a driver on this host would not find the nodes", listed(evidence), hint)


def _remedies(
    case: Case, wrong: Sequence[str], missing: Sequence[str], *, writable: bool
) -> list[str]:
    found = []
    if wrong:
        found.append(f"take {', '.join(wrong)} out of /etc/hosts or whatever else names them so")
    names = {k: address for k, address in host_names(case.cluster).items() if k in missing}
    if names and writable:
        return [*found, "`saf-env up` and `saf-env check --fix` add them to /etc/hosts"]
    if names:
        command = hosts_command(hosts_lines(names, case.cluster.folder.name))
        found.append(f"run `{command}` on this host")
    return found


def ports_free(case: Case) -> Verdict:
    """Every port of the node's block can be listened on."""
    seen = case.fact("ports")
    if seen["address_error"]:
        # Where the check ``address`` fails for that, it says all there is to say.
        place = case.facts["facts"].get("address")
        if place and (reason := _not_own(place)):
            raise UnknownFactError(reason)
        return fail(
            f"{seen['address']} is not an address of this host",
            seen["address_error"],
            f"correct the address of host {case.node.host} in the cluster file",
        )
    held = [port for port in seen["held"] if not (case.running and _may_be_ours(case, port))]
    if not held:
        return ok("held by this node itself" if seen["held"] else "all ports free")
    published = [port["port"] for port in held if port.get("command") in ENGINE_COMMANDS]
    find = f" (`docker ps --filter publish={published[0]}` names a container)" if published else ""
    return fail(
        "1 port is taken" if len(held) == 1 else f"{len(held)} ports are taken",
        listed([_holder(port) for port in held]),
        f"end the program that holds them{find}, or set cluster.port in the cluster file to "
        "another block",
    )


def _may_be_ours(case: Case, port: Mapping[str, Any]) -> bool:
    """Whether the holder is of this cluster; one that we may not look at is taken to be.

    The ports of a container are held by its engine, which publishes none for two.
    """
    if "pid" not in port or port["mark"].startswith(case.cluster.folder.name + "/"):
        return True
    return in_container(case.node) and port["command"] in ENGINE_COMMANDS


def _holder(port: Mapping[str, Any]) -> str:
    who = f"held by {port['command']}, pid {port['pid']}" if "pid" in port else port["error"]
    return f"{port['port']} ({port['name']}): {who}"


def _block(node: NodePlan) -> dict[int, str]:
    names = {number: name for name, number in node.ports.fixed().items()}
    workers = range(node.ports.min_worker, node.ports.max_worker + 1)
    return {**dict.fromkeys(workers, "worker"), **names}


def ports_disjoint(case: Case) -> Verdict:
    """No two uses of one port on the node's host, and GCS not on Redis's."""
    node = case.node
    if node.ports.gcs == REDIS_PORT:
        return fail(
            f"the GCS port is {REDIS_PORT}, which is Redis's",
            "",
            "set cluster.port in the cluster file to another one, such as 6380",
        )
    own = _block(node)
    expected = len(node.ports.fixed()) + node.ports.max_worker - node.ports.min_worker + 1
    if len(own) != expected:
        return fail("two uses of one port in the node's own block", "", _MORE)
    high = [f"{number} ({name})" for number, name in own.items() if not 1024 <= number <= 65535]
    if high:
        return fail("ports outside of 1024 to 65535", listed(high), _MORE)
    for other in case.cluster.nodes:
        shared = sorted(own.keys() & _block(other).keys()) if other.host == node.host else []
        if shared and other.name != node.name:
            text = listed([f"{number} ({own[number]})" for number in shared])
            return fail(f"node {other.name} on the same host has the same ports", text, _MORE)
    return ok(f"{len(own)} ports of its own")


_MORE = "set cluster.port or cluster.ports_per_node in the cluster file"

CHECKS = (
    Check(
        "address",
        "node",
        "fail",
        "an address that is the host's own",
        address,
        "Ray listens on the address of the node's host, and tells it to all others. The host must "
        "have it; a name must lead there on the host itself as well. Debian names a machine "
        "127.0.1.1 in its own /etc/hosts: in a cluster of several hosts nobody else would find it.",
        "Correct the address of the host in the cluster file, or the host's line in /etc/hosts.",
        lambda node: node.network != "tailscale",
    ),
    Check(
        "advertised-name",
        "node",
        "fail",
        "names that lead to their nodes",
        advertised_name,
        "A node in a network of the engine, or with peers in one, advertises a name that means "
        "different addresses in different places. On every host each must have exactly the address "
        "of its node's host. `saf-env up` and `--fix` write them to /etc/hosts where they may, "
        "marked as ours, and `saf-env down` removes them. On a host without a native node it is a "
        "warning: its containers know the names by themselves, drivers do not.",
        "`saf-env check --fix` writes the names to /etc/hosts where it may; else the command that "
        "is shown does, with sudo. A line that is not ours is for you to remove.",
    ),
    Check(
        "ports-free",
        "node",
        "fail",
        "every port of the node can be listened on",
        ports_free,
        "Ray gets every port from the plan. Each is tried on the node's address and on all "
        "addresses, those that a container publishes where they are published; on Linux the holder "
        "is named.",
        "End the program that is named, or set cluster.port in the cluster file to another block.",
    ),
    Check(
        "ports-disjoint",
        "cluster",
        "fail",
        "no port is planned twice on a host",
        ports_disjoint,
        "Blocks of nodes on one host must not overlap, and 6379 is refused for the GCS: a Redis "
        "there would be taken for it.",
        "Set cluster.port or cluster.ports_per_node in the cluster file.",
    ),
)

"""What must be true of a cluster file beyond its schema: things that refer to each other."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from saf_env.spec.model import DEFAULT_PORT, DEFAULT_PORTS_PER_NODE, sidecar
from saf_env.spec.words import nearest

SUPPORTED_PYTHONS = ">=3.10,<3.15"
"""What Ray 2.60 has wheels for and saf-env is tested with."""

REDIS_PORT = 6379
"""Redis's own port: a GCS there meets whatever Redis the machine runs (seed report, finding 3)."""

NODE_PORTS = 12
"""Ports of a node's block that are its own, see :class:`saf_env.plan.model.Ports`."""

SPARE_PORTS = 4
"""Worker ports beyond one for each CPU: every driver needs one as well, and so does every worker
that waits for others. Measured (Ray 2.60): with 8 CPUs and 8 ports 8 actors never start, with 12
they do; without a port Ray's work waits for ever, "No available ports" in a log."""

MOST_PORTS = 2000
"""The schema's limit of ``ports_per_node``."""

RESERVED_GROUPS = ("base", "driver", "memory")
"""Environments that saf-env makes itself, and a Ray resource that a group would be taken for."""

Document = Mapping[str, Any]


def broken_rules(document: Document, *, well_formed: bool) -> list[str]:
    """Every rule that ``document`` breaks, as lines for the user.

    A document that the schema found wrong is judged all the same, so that the user sees everything
    at once; a rule that trips over what the schema has reported already stops there.
    """
    rules: tuple[Callable[[Document], Iterable[str]], ...] = (
        _python,
        _archives,
        _requirements,
        _groups,
        _exclude_newer,
        _hosts,
        _ssh,
        _one_head,
        _node_names,
        _nodes,
        _tailscale,
        _tailnet,
        _ports,
        _worker_ports,
    )
    mistakes: list[str] = []
    tolerated = () if well_formed else (AttributeError, KeyError, TypeError, ValueError)
    for rule in rules:
        with contextlib.suppress(*tolerated):
            for mistake in rule(document):
                mistakes.append(mistake)
    return mistakes


def head_first(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes in the order of their blocks of ports: the head, then the others as written."""
    return sorted(nodes, key=lambda node: node.get("role") != "head")


def version_range(text: str) -> str:
    """A version or range of the cluster file as a PEP 440 range: ``3.13`` is any 3.13.

    Only versions that saf-env and Ray support are ever in it.

    Raises:
        packaging.specifiers.InvalidSpecifier: it is neither.
    """
    from packaging.specifiers import SpecifierSet

    bare = text.strip()
    if bare and all(part.isdigit() for part in bare.split(".")):
        bare = f"=={bare}" if bare.count(".") == 2 else f"=={bare}.*"
    return str(SpecifierSet(bare) & SpecifierSet(SUPPORTED_PYTHONS))


def _python(document: Document) -> Iterator[str]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    version = document["python"]["version"]
    try:
        wanted = SpecifierSet(version_range(version))
    except InvalidSpecifier:
        yield (
            f'python.version: found "{version}", expected a version ("3.13", "3.13.7") '
            'or a range (">=3.11,<3.14")'
        )
        return
    if not any(wanted.contains(f"3.{m}.{p}") for m in range(10, 15) for p in range(200)):
        yield f'python.version: found "{version}", expected one of CPython 3.10 to 3.14'


def _archives(document: Document) -> Iterator[str]:
    python = document["python"]
    archives = python.get("archives", {})
    if python.get("source") == "archive" and not archives:
        yield "python.archives: missing, expected a table, since python.source is archive"
    for platform, archive in archives.items():
        file = str(archive["file"])
        if "://" in file and not file.startswith("https://"):
            yield f"python.archives.{platform}.file: only https addresses are taken"
        elif "://" not in file and _leaves_the_project(file):
            yield f"python.archives.{platform}.file: must lie in the project folder"


def _leaves_the_project(file: str) -> bool:
    return file.startswith("/") or ".." in file.split("/")


def _requirements(document: Document) -> Iterator[str]:
    environment = document["environment"]
    lists = {
        "environment.requires": environment["requires"],
        "environment.driver": environment.get("driver", []),
        **{f"environment.groups.{k}": v for k, v in environment.get("groups", {}).items()},
    }
    for path, requirements in lists.items():
        for index, text in enumerate(requirements):
            if problem := _requirement_problem(text):
                yield f'{path}[{index}]: found "{text[:80]}": {problem}'
    if not any(_requirement_name(text) == "ray" for text in environment["requires"]):
        yield 'environment.requires: no "ray" in it; every node needs Ray'


def _requirement_problem(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    if not text.isprintable():
        return "a requirement is one line of plain text"
    if text.lstrip().startswith("-"):
        return "options are not taken here; only requirements such as numpy>=2"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return "not a requirement; expected something such as numpy>=2"
    if requirement.url:
        return "addresses, paths and git references cannot be locked by digest; name a version"
    return ""


def _requirement_name(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement:
        return ""


def _groups(document: Document) -> Iterator[str]:
    for name in document["environment"].get("groups", {}):
        if name in RESERVED_GROUPS:
            yield f"environment.groups.{name}: this name is saf-env's own; choose another"


def _exclude_newer(document: Document) -> Iterator[str]:
    text = document["environment"].get("exclude_newer")
    if text is None:
        return
    try:
        datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        yield f'environment.exclude_newer: found "{text}", which is no day of the calendar'


def _hosts(document: Document) -> Iterator[str]:
    hosts: Mapping[str, Any] = document["hosts"]
    used = {node["host"] for node in document["nodes"]}
    tailnet = any(node.get("network") == "tailscale" for node in document["nodes"])
    here = [name for name, host in hosts.items() if "ssh" not in host]
    if len(here) > 1:
        names = " and ".join(f"hosts.{name}" for name in here)
        yield f"{names}: only one host can be this machine; give the others ssh"
    for name, host in hosts.items():
        if name not in used:
            yield f"hosts.{name}: no node runs on it; add one, or remove the host"
        if len(hosts) > 1 and "address" not in host:
            yield f"hosts.{name}.address: missing, needed where there are several hosts"
        elif tailnet and "address" not in host:
            yield f"hosts.{name}.address: missing, needed where a node is in a tailnet"
    addresses = Counter(_same(host["address"]) for host in hosts.values() if "address" in host)
    for address, count in addresses.items():
        if count > 1:
            yield f'hosts: address "{address}" is given to {count} hosts'


def _same(address: str) -> str:
    """An address in the one way to write it, so that two ways are not taken for two addresses."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(address))
    except ValueError:  # a name
        return address.lower()


def _ssh(document: Document) -> Iterator[str]:
    for name, host in document["hosts"].items():
        if "ssh" in host and "platform" not in host:
            yield f"hosts.{name}.platform: missing, needed of a host reached over SSH"
        for key in ("port", "path"):
            if key in host and "ssh" not in host:
                yield f"hosts.{name}.{key}: it is of a host reached over SSH; give ssh too"
        if ".." in str(host.get("path", "")).split("/"):
            yield f'hosts.{name}.path: found "{host["path"]}", expected a path without ".."'


def _one_head(document: Document) -> Iterator[str]:
    heads = [n["name"] for n in document["nodes"] if n.get("role") == "head"]
    if not heads:
        yield 'nodes: no node has role = "head"; a cluster needs exactly one'
    elif len(heads) > 1:
        yield f'nodes: {len(heads)} nodes have role = "head" ({", ".join(heads)}); expected one'


def _node_names(document: Document) -> Iterator[str]:
    if any(node["name"] == "driver" for node in document["nodes"]):
        yield 'nodes: the name "driver" is saf-env\'s own; choose another'
    for name, count in Counter(n["name"] for n in document["nodes"]).items():
        if count > 1:
            yield f'nodes: {count} nodes are called "{name}"; names must differ'


def _nodes(document: Document) -> Iterator[str]:
    hosts, groups = list(document["hosts"]), list(document["environment"].get("groups", {}))
    for index, node in enumerate(document["nodes"]):
        path = f"nodes[{index}]"
        if node["host"] not in hosts:
            hint = nearest(node["host"], hosts, "hosts")
            yield f'{path}.host: there is no host "{node["host"]}"; {hint}'
        for group in node.get("groups", ()):
            if group not in groups:
                hint = (
                    nearest(group, groups, "groups")
                    if groups
                    else "there is no table [environment.groups]"
                )
                yield f'{path}.groups: there is no group "{group}"; {hint}'
        if "fallback" in node and node["kind"] != "container":
            yield f"{path}.fallback: only a container node can fall back"
        if "network" in node and node["kind"] != "container":
            yield f"{path}.network: only a container node has one to choose"
        platform = document["hosts"].get(node["host"], {}).get("platform", "")
        if node.get("network") == "host" and platform.startswith("macos"):
            yield f"{path}.network: on a Mac this is Docker's machine's network, not the Mac's"
        for name, amount in node.get("resources", {}).items():
            if not math.isfinite(amount):
                yield f"{path}.resources.{name}: found {amount}, expected a number above 0"


def _tailscale(document: Document) -> Iterator[str]:
    file = document.get("containers", {}).get("tailscale", {}).get("auth_key_file", "")
    if file.startswith("tskey-"):  # not shown: it is a secret
        yield "containers.tailscale.auth_key_file: found a key, expected the name of a file with it"
    elif _leaves_the_project(file):
        yield "containers.tailscale.auth_key_file: must lie in the project folder"


def _tailnet(document: Document) -> Iterator[str]:
    names = {node["name"] for node in document["nodes"]}
    owners = {host.get("address"): f"hosts.{name}" for name, host in document["hosts"].items()}
    for index, node in enumerate(document["nodes"]):
        path, address = f"nodes[{index}]", node.get("address")
        if node.get("network") != "tailscale":
            if address is not None:
                yield f'{path}.address: only a node with network = "tailscale" has one of its own'
            continue
        if "tailscale" not in document.get("containers", {}):
            yield (
                "containers.tailscale: missing, expected a table with image and auth_key_file, "
                f'since {path}.network is "tailscale"'
            )
        if sidecar(node["name"]) in names:
            yield (
                f'nodes: "{sidecar(node["name"])}" is the name of the sidecar of "{node["name"]}"; '
                "choose another"
            )
        if address is None:
            yield (
                f"{path}.address: missing, expected the node's address in the tailnet, "
                f'since {path}.network is "tailscale"'
            )
        elif address in owners:
            yield f'{path}.address: found "{address}", which is that of {owners[address]}'
        else:
            owners[address] = path


def _ports(document: Document) -> Iterator[str]:
    cluster = document["cluster"]
    first = cluster.get("port", DEFAULT_PORT)
    size = cluster.get("ports_per_node", DEFAULT_PORTS_PER_NODE)
    if first == REDIS_PORT:
        yield f"cluster.port: {REDIS_PORT} is Redis's port; take another, such as {DEFAULT_PORT}"
    blocks: list[tuple[int, str]] = []
    for index, node in enumerate(document["nodes"]):
        if node.get("role") == "head" and "port" in node:
            yield f"nodes[{index}].port: the head's ports start at cluster.port; set that"
    for index, node in enumerate(head_first(document["nodes"])):
        blocks.append((node.get("port", first + index * size), node["name"]))
    blocks.sort()
    for (low, one), (high, other) in itertools.pairwise(blocks):
        if high - low < size:
            yield f"nodes: the ports of {one} ({low} and up) and {other} ({high} and up) overlap"
    last, name = blocks[-1]
    if last + size - 1 > 65535:
        yield f"nodes: the ports of {name} would end at {last + size - 1}, above 65535"


def _worker_ports(document: Document) -> Iterator[str]:
    size = document["cluster"].get("ports_per_node", DEFAULT_PORTS_PER_NODE)
    for index, node in enumerate(document["nodes"]):
        cpus = node.get("cpus", 1)
        if not isinstance(cpus, int) or cpus <= size - NODE_PORTS - SPARE_PORTS:
            continue
        most, needed = MOST_PORTS - NODE_PORTS - SPARE_PORTS, cpus + NODE_PORTS + SPARE_PORTS
        remedy = f"set cluster.ports_per_node to {needed} or more"
        if cpus > most:
            remedy = f"a node can have {most} at most, with cluster.ports_per_node = {MOST_PORTS}"
        yield (
            f"nodes[{index}].cpus: found {cpus}, and a node has {size - NODE_PORTS} ports for its "
            f"workers and drivers (cluster.ports_per_node is {size}); {remedy}"
        )

"""What of a cluster file matters for its lock.

In comes a :class:`ClusterSpec`, out go plain values and their digest. CPUs, memory, ports and
addresses are no inputs: changing them needs no new lock.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from platform import machine
from typing import Any

from saf_env.errors import ToolchainError
from saf_env.platforms import PLATFORMS, this_platform
from saf_env.spec.model import ClusterSpec, HostSpec, NodeSpec
from saf_env.uv import pinned_version

DRIVER = "driver"
"""Name of the environment, and of the toolchain, that the test driver runs in."""

DRIVER_REQUIRES = ("pytest>=9,<10",)
"""What the test driver needs besides the requirements of every node and its own."""


def host_platform(host: HostSpec) -> str:
    """Name of the platform of ``host``; without one in the cluster file, that of this machine.

    Raises:
        ToolchainError: this machine has a platform that saf-env does not know.
    """
    if host.platform:
        return host.platform
    here = this_platform()
    if here is None:
        raise ToolchainError(
            f"host {host.name} has no platform in the cluster file, and this machine "
            f"({sys.platform}, {machine()}) is none that saf-env knows",
            hint=f"set hosts.{host.name}.platform to one of {', '.join(PLATFORMS)}",
        )
    return here.name


def node_platforms(spec: ClusterSpec, node: NodeSpec) -> tuple[str, ...]:
    """The platforms that ``node`` may run on, its own first.

    A container is Linux of its host's architecture; where it may fall back to ``native``, the
    host's own platform counts too.
    """
    own = host_platform(spec.hosts[node.host])
    if node.kind == "native":
        return (own,)
    inside = f"linux-{own.split('-', 1)[1]}"
    return (inside,) if node.fallback is None or own == inside else (inside, own)


def cluster_platforms(spec: ClusterSpec) -> tuple[str, ...]:
    """All platforms of the cluster: the head's first, the others sorted."""
    first = node_platforms(spec, spec.head)
    others = {name for node in spec.nodes for name in node_platforms(spec, node)}
    return (*first, *sorted(others - set(first)))


def environment_name(groups: Iterable[str]) -> str:
    """Name of the environment of a node with ``groups``."""
    return "+".join(sorted(set(groups))) or "base"


def environment_platforms(spec: ClusterSpec) -> dict[str, tuple[str, ...]]:
    """The platforms of every environment of the cluster, sorted, by name of the environment."""
    found: dict[str, set[str]] = {DRIVER: set(cluster_platforms(spec))}
    for node in spec.nodes:
        found.setdefault(environment_name(node.groups), set()).update(node_platforms(spec, node))
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def group_platforms(spec: ClusterSpec) -> dict[str, tuple[str, ...]]:
    """The platforms of every group that some node has, sorted, by name of the group."""
    found: dict[str, set[str]] = {}
    for node in spec.nodes:
        for group in node.groups:
            found.setdefault(group, set()).update(node_platforms(spec, node))
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def inputs(spec: ClusterSpec) -> dict[str, Any]:
    """All of ``spec`` that the lock depends on, as it stands in ``lock.toml``."""
    environment, python = spec.environment, spec.python
    containers = {"containers": {"base": spec.base_image}} if has_containers(spec) else {}
    return {
        **containers,
        "uv": pinned_version(),
        "python": {
            "version": python.version,
            "source": python.source or "",
            "archives": {name: dict(vars(a)) for name, a in sorted(python.archives.items())},
        },
        "environment": {
            "requires": sorted(environment.requires),
            "driver": sorted((*environment.driver, *DRIVER_REQUIRES)),
            "exclude_newer": environment.exclude_newer or "",
            "groups": {name: sorted(environment.groups[name]) for name in group_platforms(spec)},
        },
        "nodes": {
            node.name: {
                "platforms": list(node_platforms(spec, node)),
                "groups": sorted(set(node.groups)),
            }
            for node in sorted(spec.nodes, key=lambda node: node.name)
        },
    }


def has_containers(spec: ClusterSpec) -> bool:
    """Whether a node of ``spec`` is a container where there is an engine."""
    return any(node.kind == "container" for node in spec.nodes)


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 over ``values`` as JSON with sorted keys and no blanks."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_digest(spec: ClusterSpec) -> str:
    """Digest of what ``spec`` says that matters for its lock."""
    return digest(inputs(spec))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What changed from the inputs ``old`` to ``new``, one line each, by key path."""
    for key in sorted({*old, *new}):
        where = f"{path}.{key}" if path else key
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if before is None or after is None:
            yield f"{where} was {'added' if before is None else 'removed'}"
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, where)
        elif isinstance(before, list) and isinstance(after, list):
            yield f"{where} changed: {_list_difference(before, after)}"
        else:
            yield f"{where} changed: {_shown(before)} -> {_shown(after)}"


def _list_difference(before: list[Any], after: list[Any]) -> str:
    gone = [f"without {_shown(v)}" for v in before if v not in after]
    come = [f"with {_shown(v)}" for v in after if v not in before]
    return ", ".join(come + gone) or "in another order"


def _shown(value: object) -> str:
    return f'"{value}"' if value != "" else "nothing"

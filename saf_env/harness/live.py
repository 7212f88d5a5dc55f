"""The live file: which cluster runs, and its nodes. Written by ``saf-env``, read by the plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saf_env.errors import UsageError


@dataclass(frozen=True)
class Node:
    """A node of the live cluster.

    Attributes:
        name, host, kind, role, platform: as in the plan.
        groups: groups of its environment.
        cpus: CPUs that the plan gives it; None when Ray chose.
        fingerprint: as attested.
        node_id: Ray's id of it when it was attested.
    """

    name: str
    host: str
    kind: str
    role: str
    platform: str
    groups: tuple[str, ...] = ()
    cpus: float | None = None
    fingerprint: str = ""
    node_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Live:
    """A live cluster.

    Attributes:
        cluster: its name.
        address: ``host:port`` of the GCS.
        node_ip: address of the head's raylet, which the driver works through.
        head: name of the head.
        nodes: the nodes, head first.
    """

    cluster: str
    address: str
    node_ip: str
    head: str
    nodes: tuple[Node, ...]


def load(path: Path) -> Live:
    """Read a live file.

    Raises:
        UsageError: it is missing, or not what ``saf-env`` writes.
    """
    hint = "Run `saf-env up`, then `saf-env test`."
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["schema"] != 1:
            raise UsageError(f"{path} has schema {value['schema']!r}, not 1", hint=hint)
        nodes = tuple(_node(n) for n in value["nodes"])
        texts = {key: str(value[key]) for key in ("cluster", "address", "node_ip", "head")}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not a live file of saf-env", hint=hint) from None
    return Live(nodes=nodes, **texts)


def _node(value: Mapping[str, Any]) -> Node:
    known = {k: value[k] for k in Node.__dataclass_fields__ if k in value}
    return Node(**{**known, "groups": tuple(known.get("groups", ()))})

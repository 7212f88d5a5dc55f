"""What a cluster file says, as frozen values. Made by :mod:`saf_env.spec.parse` only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["native", "container"]
Network = Literal["bridge", "host", "tailscale"]
Role = Literal["head", "worker"]
PythonSource = Literal["managed", "archive", "system"]

DEFAULT_BASE = "debian:bookworm-slim"
"""Base image of container nodes: small, and with the glibc 2.35 or newer that MLX wants."""

DEFAULT_PORT = 6380
"""First port of a cluster: the one after Redis's."""

DEFAULT_PORTS_PER_NODE = 100
"""Twelve that a node itself opens, and some 80 for its workers and drivers."""


@dataclass(frozen=True)
class Archive:
    """A packed interpreter (top folder ``python/``), pinned by digest.

    Attributes:
        file: a path relative to the cluster file, or an https address.
        version: the CPython version inside, ``X.Y.Z``.
        sha256: digest of the archive, 64 hex digits.
    """

    file: str
    version: str
    sha256: str


@dataclass(frozen=True)
class PythonSpec:
    """Which CPython the cluster wants.

    Attributes:
        version: a version (``3.13``, ``3.13.7``) or a range (``>=3.11,<3.14``), as written.
        source: where it must come from; None lets ``lock`` choose.
        archives: packed interpreters by platform name, for source ``archive``.
    """

    version: str
    source: PythonSource | None
    archives: Mapping[str, Archive]


@dataclass(frozen=True)
class EnvironmentSpec:
    """What is installed on the nodes.

    Attributes:
        requires: requirements (PEP 508) of every node.
        groups: further requirements by group name; a node lists the groups it has.
        driver: further requirements of the environment that the test driver runs in.
        exclude_newer: no file uploaded after this date (RFC 3339 or ``YYYY-MM-DD``) is considered.
    """

    requires: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    driver: tuple[str, ...]
    exclude_newer: str | None


@dataclass(frozen=True)
class TailscaleSpec:
    """How container nodes with ``network = "tailscale"`` get into the tailnet.

    Attributes:
        image: reference of Tailscale's image, ``name@sha256:<digest>``.
        auth_key_file: file with the auth key, a path relative to the project folder.
    """

    image: str
    auth_key_file: str


@dataclass(frozen=True)
class HostSpec:
    """A machine.

    Attributes:
        name: its name in the cluster file.
        address: the address that other hosts reach it by; None means this machine only (loopback).
        platform: name of its platform; None means that of the machine that makes the lock.
        ssh: ``name`` of the user's ssh config or ``user@host``; None means this machine.
        port: of its sshd; None means what the user's ssh config says, else 22.
        path: the folder that saf-env has there, absolute or with ``~/``; None: the default.
    """

    name: str
    address: str | None
    platform: str | None
    ssh: str | None
    port: int | None = None
    path: str | None = None


@dataclass(frozen=True)
class NodeSpec:
    """One Ray node as the cluster file wants it.

    Attributes:
        name: unique in the cluster.
        host: name of the host it runs on.
        kind: ``native`` or ``container``.
        role: ``head`` or ``worker``.
        groups: groups of the environment it has, sorted.
        cpus: CPUs that Ray may schedule on it; None means all of the host's.
        gpus: GPUs that Ray may schedule; None lets Ray find them.
        memory: bytes that Ray may promise to tasks, and of a container node all that it may use;
            None lets Ray choose, and sets no limit to a container.
        object_store_memory: bytes of its object store; None lets Ray choose.
        fallback: ``native`` lets a container node run natively where there is no Docker engine.
        network: of a container node: ``bridge`` (a network of the engine, published ports),
            ``host`` (the Linux host's own) or ``tailscale`` (a sidecar's, in the tailnet).
        address: of a node with the network ``tailscale`` its own in the tailnet; else None.
        port: the first port of its block; None lets the plan choose.
        resources: further Ray resources, name to amount.
    """

    name: str
    host: str
    kind: Kind
    role: Role
    groups: tuple[str, ...]
    cpus: int | None
    gpus: int | None
    memory: int | None
    object_store_memory: int | None
    fallback: Literal["native"] | None
    network: Network
    address: str | None
    port: int | None
    resources: Mapping[str, float]


def sidecar(node: str) -> str:
    """What runs beside a node with the network ``tailscale`` is called so; no node may be."""
    return f"{node}-tailscale"


@dataclass(frozen=True)
class ClusterSpec:
    """A whole cluster file.

    Attributes:
        name: name of the cluster.
        port: the GCS port, and the first port of the first node's block.
        ports_per_node: how many ports each node has for itself.
        base_image: reference of the image that those of container nodes are built on.
        tailscale: how container nodes get into the tailnet; None when the file does not say.
        python, environment, hosts, nodes: the sections of the same names, in the file's order.
    """

    name: str
    port: int
    ports_per_node: int
    base_image: str
    tailscale: TailscaleSpec | None
    python: PythonSpec
    environment: EnvironmentSpec
    hosts: Mapping[str, HostSpec]
    nodes: tuple[NodeSpec, ...]

    @property
    def here(self) -> str:
        """The host that the machine is taken to be which the cluster file is read on."""
        return next((h.name for h in self.hosts.values() if h.ssh is None), "")

    def controlled_from(self, host: str) -> bool:
        """Whether the cluster is run from ``host``: the one without ``ssh``, or any if all have."""
        return self.here in ("", host)

    @property
    def head(self) -> NodeSpec:
        """The one head node."""
        return next(n for n in self.nodes if n.role == "head")

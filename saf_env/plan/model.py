"""The plan: a cluster file and its lock, resolved to what each node must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.fingerprint import fingerprint
from saf_env.spec.model import Kind, Network, Role, TailscaleSpec


@dataclass(frozen=True)
class Ports:
    """Every port that one node listens on. ``None`` where only the head has one.

    Ray's own names are used, less the word "port". Workers take theirs from
    ``min_worker..max_worker``, both included.
    """

    node_manager: int
    object_manager: int
    runtime_env_agent: int
    dashboard_agent_listen: int
    dashboard_agent_grpc: int
    metrics_export: int
    min_worker: int
    max_worker: int
    gcs: int | None = None
    dashboard: int | None = None
    dashboard_metrics: int | None = None
    ray_client_server: int | None = None

    def fixed(self) -> dict[str, int]:
        """Name and number of every port that the node itself opens, workers' left out."""
        skip = ("min_worker", "max_worker")
        return {k: v for k, v in vars(self).items() if v is not None and k not in skip}


@dataclass(frozen=True)
class EnvironmentPlan:
    """One environment on one platform, built by one interpreter.

    Attributes:
        key: folder name under ``.saf/envs``: name, platform and a digest of all that goes in.
        lock: its requirements.
        interpreter: the CPython it is made with.
        packages: exact version by normalised name, as the lock's markers give for the platform.
        path: the folder, absolute, on the host.
        uv_version: exact version of the uv that installs it.
    """

    key: str
    lock: EnvironmentLock
    interpreter: Interpreter
    packages: Mapping[str, str]
    path: Path
    uv_version: str

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.path / "bin" / "python"

    @property
    def fingerprint(self) -> str:
        """That of the nodes that run in it, see :mod:`saf_env.plan.fingerprint`."""
        found = self.interpreter
        return fingerprint(
            version=found.version, build=found.build, sha256=found.sha256, packages=self.packages
        )


@dataclass(frozen=True)
class ImagePlan:
    """The image that container nodes of one environment and platform run.

    Attributes:
        key: 12 hex digits of a digest over all that goes in; an unchanged key needs no build.
        tag: ``saf-env:<environment>-<platform>-<key>``.
        base: the base image: ``name@sha256:<digest>``, or ``sha256:<digest>``, the id of one that
            the engine has.
        environment: what is installed, with which interpreter, by which uv.
        uv_wheel: sha256 of uv's wheel for the platform.
    """

    key: str
    tag: str
    base: str
    environment: EnvironmentPlan
    uv_wheel: str


@dataclass(frozen=True)
class HostPlan:
    """One machine.

    Attributes:
        name: its name in the cluster file.
        address: where the ports of its native nodes are open, and what other hosts reach it by.
        platform: its platform.
        ssh: ``name`` of the user's ssh config or ``user@host``; empty for this machine.
        port: of its sshd; None leaves that to the user's ssh config.
        home: the folder that saf-env has there: this machine's project folder, or one like it. A
            relative one is below the home of the user who logs in, where commands run.
    """

    name: str
    address: str
    platform: str
    ssh: str
    port: int | None
    home: Path

    @property
    def here(self) -> bool:
        """Whether it is this machine."""
        return not self.ssh


@dataclass(frozen=True)
class NodePlan:
    """What one node must be.

    Attributes:
        name, host, role, groups, platform: as in the cluster file; ``platform`` is where it runs.
        kind: how it runs. A container node with ``fallback = "native"`` on a host without a Docker
            engine runs natively; ``fallback_reason`` then says why, else it is empty.
        address: of its host, where its ports are open: those of a container are published there.
        advertise: what Ray is told to advertise and peers reach it by: the address; or, where a
            node is in a network of the engine or has peers in one, a name that means different
            addresses in different places (see :mod:`saf_env.plan.names`); or its own address in
            the tailnet.
        network: how it is reached: ``host`` (natively, or in the host's network), or, for a
            container, ``bridge`` or ``tailscale``.
        ports: every port of its block.
        cpus, gpus, memory, object_store_memory: as in the cluster file; None lets Ray choose. The
            object store of a container always has a size, since its ``/dev/shm`` needs one.
        resources: Ray resources, ``saf_node_<name>`` among them.
        labels: Ray node labels, values as text.
        variables: environment variables that Ray and its workers get, none of them secret.
        environment: what is installed.
        image: of a container node, the image that has the environment; else None.
        fingerprint: of the environment.
        temp_dir: Ray's ``--temp-dir``: a short path in the cluster's own temp folder.
    """

    name: str
    host: str
    kind: Kind
    fallback_reason: str
    role: Role
    platform: str
    groups: tuple[str, ...]
    address: str
    advertise: str
    network: Network
    ports: Ports
    cpus: int | None
    gpus: int | None
    memory: int | None
    object_store_memory: int | None
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    variables: Mapping[str, str]
    environment: EnvironmentPlan
    image: ImagePlan | None
    fingerprint: str
    temp_dir: Path


@dataclass(frozen=True)
class ClusterPlan:
    """What the whole cluster must be.

    Attributes:
        name: name of the cluster.
        home: the folder of the cluster file; ``.saf`` and ``lockfiles`` lie in it.
        folder: the cluster's temp folder on every host; its name is the cluster id, which marks
            our processes and containers.
        address: ``host:port`` of the GCS.
        lock_sha256: digest of the lock it was made from.
        hosts: every host by name.
        nodes: the head first, then the workers in the cluster file's order.
        interpreters: the locked CPython of a host's own platform by its name; a Mac that only has
            containers has none.
        driver: the environment of the test driver, on this machine.
        tailscale: how container nodes get into the tailnet, as in the cluster file.
        controller: the host that the cluster is run from, which need not be the head's; empty
            where that may be any machine.
    """

    name: str
    home: Path
    folder: Path
    address: str
    lock_sha256: str
    hosts: Mapping[str, HostPlan]
    nodes: tuple[NodePlan, ...]
    interpreters: Mapping[str, Interpreter]
    driver: EnvironmentPlan
    tailscale: TailscaleSpec | None = None
    controller: str = ""

    @property
    def head(self) -> NodePlan:
        """The head node."""
        return self.nodes[0]

    @property
    def driver_node(self) -> NodePlan | None:
        """The native node that drivers on this machine attach to, the head if it is one."""
        here = (node for node in self.nodes if self.host_of(node).here)
        return next((node for node in here if node.kind == "native"), None)

    def host_of(self, node: NodePlan) -> HostPlan:
        """The machine that ``node`` runs on."""
        return self.hosts[node.host]

    def on(self, host: str) -> tuple[NodePlan, ...]:
        """The nodes of one host, the head first."""
        return tuple(node for node in self.nodes if node.host == host)

    @property
    def containers(self) -> tuple[NodePlan, ...]:
        """The container nodes."""
        return tuple(node for node in self.nodes if node.kind == "container")

    def node(self, name: str) -> NodePlan:
        """The node called ``name``.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

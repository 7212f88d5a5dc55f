"""The facts of a node: the probe, run on its host under its environment's interpreter."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import HostUnreachableError, SafEnvError, ToolchainError
from saf_env.plan.build import token_path
from saf_env.plan.compose import published
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.plan.names import host_names
from saf_env.provision.image_facts import OF_ENVIRONMENT
from saf_env.transports.base import CommandResult, Transport
from saf_env.transports.script import script
from saf_env.uv import uv_binary

_PROBE = Path(probe.__file__)


def gather_facts(
    node: NodePlan,
    cluster: ClusterPlan,
    transport: Transport,
    user_env: Mapping[str, str],
    *,
    deep: bool = False,
    uv: Path | None = None,
    python: Path | None = None,
    beside: Sequence[NodePlan] = (),
) -> dict[str, Any]:
    """Look at ``node`` as it is now, changing nothing.

    Args:
        node: the node.
        cluster: its cluster.
        transport: to its host.
        user_env: the variables of the user's shell there.
        deep: hash every file of the environment, not only those that seem changed.
        uv: the uv that would be used; default: the project's own.
        python: by which the host is looked at where the node's own Python cannot do it; default:
            saf-env's own, on this machine.
        beside: nodes of the same host and environment, of the same kind: most is true of them too.

    Returns:
        What :func:`saf_env.probe.gather` gives, with the fact ``clock`` (seconds that the host's is
        ahead of this machine's: ``offset``, known to ``within``), and ``user_variables``, filtered
        as the probe does.
        Of a container node only what its host can tell; the rest is for
        :func:`saf_env.provision.image_facts.container_facts`. The same of the nodes ``beside`` it
        under that name, by theirs.

    Raises:
        HostUnreachableError: the host cannot be reached.
        ToolchainError: not even the interpreter of saf-env itself runs there.
    """
    request = request_for(node, cluster, deep=deep, uv=uv)
    if beside:
        request["beside"] = {other.name: _own(request_for(other, cluster)) for other in beside}
    began = time.time()
    facts: Any = None
    problem = "it is in the node's image"
    if node.kind == "native":
        facts, problem = _try(transport, str(node.environment.python), request)
    if problem:
        others = [name for name in probe.FACTS if name not in OF_ENVIRONMENT]
        facts, fault = _try(transport, str(python or sys.executable), {**request, "only": others})
        if fault and python:  # on another host there may be nothing yet
            facts, problem = {"facts": {}, "unknown": dict.fromkeys(others, fault)}, fault
        elif fault:
            raise ToolchainError(
                f"{transport.host}: the probe does not run: {fault}",
                hint="saf-env's own Python is broken: remove .saf/tool and run `make`",
                node=node.name,
            )
        facts["unknown"].update(dict.fromkeys(OF_ENVIRONMENT, problem))
    _clock(facts, began, time.time())
    facts["user_variables"] = probe.variables(user_env)
    if beside:
        own = facts.pop("beside", {})
        facts["beside"] = {other.name: _like(facts, own.get(other.name)) for other in beside}
    found: dict[str, Any] = facts
    return found


def _own(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the probe has to be told of a node beside another."""
    return {key: request[key] for key in ("folders", "ports", "node")}


def _like(facts: Mapping[str, Any], own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The facts of a node beside one with ``facts``: its own (None: nobody looked), and shared."""
    if own is None:
        return {**facts, "facts": dict(facts["facts"]), "unknown": dict(facts["unknown"])}
    kinds = ("facts", "unknown")
    shared = {
        kind: {name: x for name, x in facts[kind].items() if name not in probe.OF_NODE}
        for kind in kinds
    }
    return {**facts, **{kind: {**shared[kind], **own[kind]} for kind in kinds}}


def _clock(facts: dict[str, Any], began: float, ended: float) -> None:
    """Add the fact ``clock``: by how many seconds the host's is ahead of ours, how surely."""
    platform = facts["facts"].get("platform", {})
    if (there := platform.pop("time", None)) is not None:
        middle, half = (began + ended) / 2, (ended - began) / 2
        facts["facts"]["clock"] = {"offset": there - middle, "within": half}
    else:
        facts["unknown"]["clock"] = facts["unknown"].get("platform", "the probe did not look")


def request_for(
    node: NodePlan, cluster: ClusterPlan, *, deep: bool = False, uv: Path | None = None
) -> dict[str, Any]:
    """What the probe is asked about ``node``."""
    home = cluster.host_of(node).home
    return {
        "deep": deep,
        "folders": _folders(node, cluster),
        "temp_dir": str(cluster.folder),
        "address": node.address,
        "ports": _ports(node),
        "cluster_id": cluster.folder.name,
        "node": node.name,
        "names": sorted(host_names(cluster)),
        "peers": sorted({h.address for h in cluster.hosts.values() if h.name != node.host}),
        "envs": str(node.environment.path.parent),
        "token": str(token_path(home, cluster.name)),
        "uv": str(uv or uv_binary(home)),
    }


def _ports(node: NodePlan) -> list[tuple[str, int] | tuple[str, int, str]]:
    """The ports that have to be free: name, number and, of those published, the address."""
    workers = range(node.ports.min_worker, node.ports.max_worker + 1)
    named = [*node.ports.fixed().items(), *(("worker", number) for number in workers)]
    if node.network == "tailscale":  # a network of its own
        return []
    if node.network != "bridge":
        return [*named]
    where: dict[int, str] = {}
    for text in published(node):  # address:first-last:first-last
        address, block, _ = text.rsplit(":", 2)
        first, _, last = block.partition("-")
        where |= dict.fromkeys(range(int(first), int(last or first) + 1), address.strip("[]"))
    return [(name, number, where[number]) for name, number in named if number in where]


def _folders(node: NodePlan, cluster: ClusterPlan) -> dict[str, str]:
    """The folders of the host that need room, by what they are for."""
    if node.kind == "container":
        return {"the cluster": str(cluster.folder)}
    return {"the environment": str(node.environment.path), "Ray": str(node.temp_dir)}


def _try(transport: Transport, python: str, request: Mapping[str, Any]) -> tuple[Any, str]:
    """The probe's answer under ``python``, or why there is none."""
    try:
        result = _run(transport, python, request)
    except HostUnreachableError:
        raise
    except SafEnvError as error:
        return None, error.message
    if not result.ok:
        return None, f"{python} does not run: {result.tail(3)}"
    try:
        return json.loads(result.stdout), ""
    except ValueError:  # whatever it is that ran there
        return None, f"{python} is no Python that answers"


def _run(transport: Transport, python: str, request: Mapping[str, Any]) -> CommandResult:
    argv, stdin = script(python, _PROBE, request)
    seconds = 600.0 if request["deep"] else 60.0
    return transport.run(argv, env={"PATH": os.defpath}, timeout=seconds, stdin=stdin)

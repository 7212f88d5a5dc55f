"""The facts of a node: the probe, run on its host under its environment's interpreter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.errors import HostUnreachableError, SafEnvError, ToolchainError
from saf_env.plan.build import token_path
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.transports.base import CommandResult, Transport
from saf_env.uv import uv_binary

_PROBE = Path(probe.__file__)
_OF_ENVIRONMENT = ("interpreter", "environment", "packages", "isolation", "files")


def gather_facts(
    node: NodePlan,
    cluster: ClusterPlan,
    transport: Transport,
    user_env: Mapping[str, str],
    *,
    deep: bool = False,
    uv: Path | None = None,
) -> dict[str, Any]:
    """Look at ``node`` as it is now, changing nothing.

    Args:
        node: the node.
        cluster: its cluster.
        transport: to its host.
        user_env: the variables of the user's shell there.
        deep: hash every file of the environment, not only those that seem changed.
        uv: the uv that would be used; default: the project's own.

    Returns:
        What :func:`saf_env.probe.gather` gives, and ``user_variables``, filtered as the probe does.

    Raises:
        HostUnreachableError: the host cannot be reached.
        ToolchainError: not even the interpreter of saf-env itself runs there.
    """
    request = request_for(node, cluster, deep=deep, uv=uv)
    facts, problem = _try(transport, str(node.environment.python), request)
    if problem:
        others = [name for name in probe.FACTS if name not in _OF_ENVIRONMENT]
        facts, fault = _try(transport, sys.executable, {**request, "only": others})
        if fault:
            raise ToolchainError(
                f"{transport.host}: the probe does not run: {fault}",
                hint="saf-env's own Python is broken: remove .saf/tool and run `make`",
                node=node.name,
            )
        facts["unknown"].update(dict.fromkeys(_OF_ENVIRONMENT, problem))
    return {**facts, "user_variables": probe.variables(user_env)}


def request_for(
    node: NodePlan, cluster: ClusterPlan, *, deep: bool = False, uv: Path | None = None
) -> dict[str, Any]:
    """What the probe is asked about ``node``."""
    workers = range(node.ports.min_worker, node.ports.max_worker + 1)
    return {
        "deep": deep,
        "folders": {"the environment": str(node.environment.path), "Ray": str(node.temp_dir)},
        "temp_dir": str(cluster.folder),
        "address": node.address,
        "ports": [*node.ports.fixed().items(), *(("worker", number) for number in workers)],
        "cluster_id": cluster.folder.name,
        "node": node.name,
        "token": str(token_path(cluster.home, cluster.name)),
        "uv": str(uv or uv_binary(cluster.home)),
    }


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
    return json.loads(result.stdout), ""


def _run(transport: Transport, python: str, request: Mapping[str, Any]) -> CommandResult:
    # -I: no variable and no user folder has a say; -S: no .pth file and no sitecustomize runs.
    argv = [python, "-I", "-S", str(_PROBE)]
    seconds = 600.0 if request["deep"] else 60.0
    return transport.run(argv, env={"PATH": os.defpath}, timeout=seconds, stdin=json.dumps(request))

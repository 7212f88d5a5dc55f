"""``saf-env plan``: what ``up`` would do, without doing it."""

from __future__ import annotations

import argparse
from typing import Any

from saf_env.cli.context import Context
from saf_env.cli.output import print_json, print_table
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, NodePlan


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the plan of the lock in place."""
    context.fresh_lock()
    plan = context.plan
    if arguments.json:
        print_json(plan_json(plan))
        return 0
    print(f"cluster {plan.name} at {plan.address}, lock {plan.lock_sha256[:12]}")
    print_table(
        ["node", "host", "kind", "role", "platform", "python", "environment", "ports", "cpus"],
        [_row(node) for node in plan.nodes],
    )
    for node in plan.nodes:
        if node.fallback_reason:
            print(f"{node.name} is a container node; it runs natively: {node.fallback_reason}")
    return 0


def _row(node: NodePlan) -> list[str]:
    interpreter = node.environment.interpreter
    ports = [*node.ports.fixed().values(), node.ports.max_worker]
    return [
        node.name,
        node.host,
        node.kind,
        node.role,
        node.platform,
        f"{interpreter.version} ({interpreter.source})",
        node.environment.lock.name,
        f"{min(ports)}-{max(ports)}",
        "all" if node.cpus is None else str(node.cpus),
    ]


def plan_json(plan: ClusterPlan) -> dict[str, Any]:
    """The value of ``saf-env plan --json``."""
    return {
        "schema": 1,
        "cluster": plan.name,
        "address": plan.address,
        "lock": plan.lock_sha256,
        "nodes": [node_json(node) for node in plan.nodes],
        "driver": environment_json(plan.driver),
    }


def node_json(node: NodePlan) -> dict[str, Any]:
    """One node of ``saf-env plan --json``: everything that ``up`` hands to Ray, and why."""
    return {
        "name": node.name,
        "host": node.host,
        "kind": node.kind,
        "fallback_reason": node.fallback_reason,
        "role": node.role,
        "platform": node.platform,
        "groups": list(node.groups),
        "advertise": node.advertise,
        "ports": vars(node.ports),
        "cpus": node.cpus,
        "gpus": node.gpus,
        "memory": node.memory,
        "object_store_memory": node.object_store_memory,
        "resources": dict(node.resources),
        "labels": dict(node.labels),
        "variables": dict(node.variables),
        "environment": environment_json(node.environment),
        "image": node.image.tag if node.image else "",
        "planned_fingerprint": node.fingerprint,
        "temp_dir": str(node.temp_dir),
    }


def environment_json(environment: EnvironmentPlan) -> dict[str, Any]:
    """An environment of ``saf-env plan --json``."""
    return {
        "key": environment.key,
        "name": environment.lock.name,
        "sha256": environment.lock.sha256,
        "path": str(environment.path),
        "python": vars(environment.interpreter),
        "uv": environment.uv_version,
        "packages": dict(environment.packages),
    }

"""``saf-env join``: check, start and attest one node, on its own machine."""

from __future__ import annotations

import argparse

from saf_env.cli.commands.up import bring_up
from saf_env.cli.context import Context
from saf_env.errors import UsageError


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Bring up one node of this machine; its head, on another one, has to run."""
    context.refuse_unknown([arguments.node], [node.name for node in context.spec.nodes], "node")
    node = next(n for n in context.spec.nodes if n.name == arguments.node)
    if node.host != context.here:
        raise UsageError(
            f"{node.name} is a node of {node.host}, and this machine is {context.here}",
            hint=f"run `saf-env join {node.name}` on {node.host}, or `saf-env up {node.name}` on "
            f"{context.spec.here or 'the machine that the cluster is run from'}",
        )
    if not context.controls and not any(n.kind == "native" for n in context.own_nodes()):
        raise UsageError(
            f"{context.here} has containers only, and Ray is asked from a native node",
            hint=f"run `saf-env up {node.name}` on {context.spec.here}, or give {context.here} a "
            "native node in the cluster file",
        )
    arguments.nodes, arguments.partial = [node.name], False
    return bring_up(context, arguments)

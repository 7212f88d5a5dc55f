"""``saf-env status``: the nodes, planned against actual."""

from __future__ import annotations

import argparse

from saf_env.cli.context import Context
from saf_env.cli.output import print_json, print_table, printable
from saf_env.cluster import state as states
from saf_env.cluster.look import look
from saf_env.cluster.status import NodeStatus, as_json
from saf_env.errors import LockError
from saf_env.plan.build import token_path


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the status; what it is does not change the exit code."""
    try:
        context.plan  # noqa: B018 - whether there is one is told before anything is looked at
    except LockError as error:
        raise LockError(f"{error.message}. {_running(context)}", hint=error.hint) from error
    context.refuse_unsupported(context.own_nodes())
    seen = look(context)
    if arguments.json:
        print_json(as_json(context.plan, seen.nodes))
        return 0
    show(context, seen.nodes)
    if not context.controls:
        told = "what Ray tells" if seen.answered else "unknown, since Ray does not answer"
        print(f"this is {context.here}; what is on other hosts is {told}")
    if seen.mute:
        print(f"not asked: {printable(seen.mute.message)}")
        print(f"to mend it: {seen.mute.hint}")
    for lost in seen.lost.values():
        print(f"not seen: {printable(lost.message)}")
    for name in seen.leftovers:
        print(f"{name} runs from an earlier plan, and is no node of the cluster file any more")
    for node in seen.strangers:
        where = f"{node.address}:{node.port}"
        print(f"not ours: a Ray node at {where} joined around saf-env (Ray's id {node.id[:12]})")
    started = any(status.state != "absent" for status in seen.nodes)
    if started and not token_path(context.place, context.plan.name).exists():
        print("there is no token: a cluster that runs cannot be asked without it")
    if reasons := context.stale():
        print(f"the lock is stale: {'; '.join(reasons)}. What runs is judged by the lock in place")
    return 0


def _running(context: Context) -> str:
    """What runs of a cluster whose plan cannot be made."""
    home, name = context.place, context.spec.name
    found, _ = context.hosts().look(states.read(home, name).recorded)
    nodes = ", ".join(dict.fromkeys(f.node for f in found))
    if not nodes:
        return f"Nothing of cluster {name} runs"
    return f"Of cluster {name} there run: {nodes}; `saf-env logs` and `saf-env down` work"


def show(context: Context, nodes: list[NodeStatus]) -> None:
    """The table of nodes."""
    plan = context.plan
    ready = sum(status.state == "ready" for status in nodes)
    print(f"cluster {plan.name} at {plan.address}: {ready} of {len(nodes)} nodes ready")
    print_table(
        ["node", "state", "host", "kind", "role", "platform", "python", "fingerprint"],
        [
            [
                s.node.name,
                s.state,
                s.node.host,
                s.node.kind,
                s.node.role,
                s.node.platform,
                s.python or "-",
                fingerprint_cell(s),
            ]
            for s in nodes
        ],
    )


def fingerprint_cell(status: NodeStatus) -> str:
    """Twelve digits of the fingerprint, and the planned one where they differ."""
    actual, planned = status.fingerprint[:12] or "-", status.node.fingerprint[:12]
    return actual if actual == planned else f"{actual} (planned {planned})"

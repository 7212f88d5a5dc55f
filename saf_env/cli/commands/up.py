"""``saf-env up``: lock if nothing is locked, provision, check, start, attest."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, print_json
from saf_env.cluster import state as states
from saf_env.cluster.status import NodeStatus, as_attested, as_json
from saf_env.errors import BringUpError, LockError, UsageError
from saf_env.plan.model import NodePlan
from saf_env.preflight.registry import IDS

if TYPE_CHECKING:
    from saf_env.cluster.lifecycle import UpResult


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Bring the cluster up and print its status; what is up already is left alone."""
    if not context.controls:
        raise UsageError(
            f"this machine is {context.here}, and cluster {context.spec.name} is run from "
            f"{context.spec.here}, the host without ssh in the cluster file",
            hint="`saf-env join NODE` starts a node of this machine; run `saf-env up` on "
            f"{context.spec.here}",
        )
    return bring_up(context, arguments)


def bring_up(context: Context, arguments: argparse.Namespace) -> int:
    """Start the nodes that ``arguments`` name, or all, and print the status of the cluster."""
    from saf_env.cluster.same_plan import refuse_moved

    began = time.monotonic()
    context.refuse_unknown(arguments.ignore, IDS, "check")
    with Progress() as progress:
        _lock_if_needed(context, progress)
        context.fresh_lock()
        context.refuse_unsupported(context.own_nodes())
        with states.held(context.place, context.plan.name, "saf-env up"):
            refuse_moved(context.plan)
            nodes, started = _alone(context, arguments, progress)
    if arguments.json:
        print_json(as_json(context.plan, nodes))
        return 0
    from saf_env.cli.commands.status import show

    show(context, nodes)
    if started:
        print(f"started {', '.join(started)} in {time.monotonic() - began:.1f} s")
    else:
        print("everything was up already")
    return 0


def _lock_if_needed(context: Context, progress: Progress) -> None:
    """Lock a cluster that has no lock at all; a stale one is the user's to look at."""
    if (context.home / "lockfiles" / context.spec.name).exists():
        return
    if not context.controls:
        raise LockError(
            f"there is no lock of cluster {context.spec.name} here, and one made here would be "
            "another",
            hint=f"bring lockfiles/{context.spec.name} from {context.spec.here}: commit it, or "
            "copy the folder",
        )
    from saf_env.lock.make import make

    progress.step(f"locking cluster {context.spec.name}")
    make(context.spec, context.home, context.uv, notify=progress.notice)


def _alone(
    context: Context, arguments: argparse.Namespace, progress: Progress
) -> tuple[list[NodeStatus], tuple[str, ...]]:
    """As :func:`_up`, and nobody else works on the cluster meanwhile."""
    from saf_env.cluster.hold import Work, hold
    from saf_env.cluster.hosts import refuse_lost

    plan = context.plan
    known = [node.name for node in plan.nodes]
    context.refuse_unknown(arguments.nodes, known, "node")
    if arguments.partial:
        arguments.nodes = _reachable(context, arguments.nodes, progress)
    wanted = arguments.nodes or known
    places = {plan.head.host, *(node.host for node in plan.nodes if node.name in wanted)}
    hosts = context.hosts()
    asked = places - hosts.unasked
    if others := sorted(name for name in asked if not plan.hosts[name].here):
        progress.step(f"reaching {', '.join(others)}")
    with hold(hosts, Work(plan.name, arguments.module, plan.home), places) as lost:
        refuse_lost(lost)
        return _up(context, arguments, wanted, progress)


def _reachable(context: Context, names: Sequence[str], progress: Progress) -> list[str]:
    """The nodes to bring up, less those on hosts that cannot be reached.

    Raises:
        HostUnreachableError: the head's host is among these.
    """
    from saf_env.cluster.hosts import refuse_lost
    from saf_env.provision.survey import survey

    plan, hosts = context.plan, context.hosts()
    others = [name for name, host in plan.hosts.items() if not host.here]
    progress.step(f"looking for {', '.join(others) or 'no other host'}")
    _, lost = hosts.ask(others, lambda host: survey(host.plan, host.transport))
    if plan.head.host in lost:
        raise lost[plan.head.host]
    hosts.give_up(lost)  # whoever does not answer is waited for once
    wanted = [node for node in plan.nodes if not names or node.name in names]
    for name, error in lost.items():
        without = ", ".join(node.name for node in wanted if node.host == name)
        if without:
            progress.notice(f"without {without}: {error.message}")
    left = [node.name for node in wanted if node.host not in lost]
    if not left:
        refuse_lost(lost)
    return left


def _up(
    context: Context, arguments: argparse.Namespace, wanted: Sequence[str], progress: Progress
) -> tuple[list[NodeStatus], tuple[str, ...]]:
    """The status of all nodes, and the names of those that had to be started."""
    from saf_env.cluster.look import look
    from saf_env.cluster.prepare import make_token

    plan = context.plan
    make_token(context)
    # What looks ready needs no second look; what was not started from here is seen soon enough.
    started = states.read(context.place, plan.name).nodes
    if started.keys() >= {*wanted} and (seen := look(context)).ready(wanted):
        return seen.nodes, ()
    result = _bring_up(context, arguments, progress)
    if len(result.attested) == len(plan.nodes):
        return [as_attested(node) for node in plan.nodes], result.started
    seen = look(context, result.ray)
    if not seen.ready(wanted):
        found = [f"{s.node.name} is {s.state}" for s in seen.nodes if s.node.name in wanted]
        raise BringUpError(
            f"cluster {plan.name} is up, and is not what was planned: {', '.join(found)}",
            hint="run `saf-env down`, then `saf-env check --deep --fix`, then `saf-env up`",
        )
    return seen.nodes, result.started


def _bring_up(context: Context, arguments: argparse.Namespace, progress: Progress) -> UpResult:
    from saf_env.cluster.lifecycle import Lifecycle
    from saf_env.cluster.prepare import forget_names, prepare

    wrote = prepare(
        context, progress.step, progress.notice, ignore=arguments.ignore, only=arguments.nodes
    )
    context.plan_anew()
    plan = context.plan
    lifecycle = Lifecycle(plan, context.hosts(), context.gcs, progress.step)

    def gate(nodes: Sequence[NodePlan]) -> None:
        from saf_env.cluster.gate import findings, gather, refuse_failed, with_ways
        from saf_env.preflight.base import together

        for node in nodes:
            if node.fallback_reason:
                progress.notice(
                    f"{node.name} is a container node; it runs natively, as its fallback allows: "
                    f"{node.fallback_reason}"
                )
        progress.step("checking every node before it starts")
        facts = gather(context, nodes)
        if len(plan.hosts) > 1:
            with_ways(context, facts, nodes, notify=progress.step)
        found = findings(plan, facts, context.stale(), ignore=arguments.ignore)
        refuse_failed(found)
        told = {node.name for node in nodes if node.fallback_reason}
        warned = [f for f in found if f.level == "warn"]
        warned = [f for f in warned if f.id != "docker-engine" or f.node not in told]
        for finding, names in together(warned):
            progress.notice(f"warning: {names}: {finding.id}: {finding.summary}")

    try:
        return lifecycle.up(gate, arguments.nodes)
    except BaseException:
        if wrote:
            forget_names(context)
        raise

"""``saf-env service``: native nodes come back after a reboot of their host."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from saf_env.cli.context import Context
from saf_env.cli.output import Progress, print_json, print_table
from saf_env.errors import UsageError

if TYPE_CHECKING:
    from saf_env.plan.model import NodePlan


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Install, remove or show the services of nodes."""
    if arguments.json and arguments.action != "status":
        raise UsageError("--json is for `saf-env service status`")
    {"install": _install, "remove": _remove, "status": _status}[arguments.action](
        context, arguments
    )
    return 0


def _install(context: Context, arguments: argparse.Namespace) -> None:
    from saf_env.cluster import services
    from saf_env.cluster import state as states
    from saf_env.cluster.hold import Work, hold
    from saf_env.cluster.hosts import refuse_lost

    context.fresh_lock()
    plan, nodes = context.plan, _nodes(context, arguments)
    if not arguments.nodes:  # Docker starts containers again by itself
        nodes = tuple(node for node in nodes if node.kind == "native")
    services.refuse_containers(nodes)
    hosts, work = context.hosts(), Work(plan.name, "service install", context.place)
    with (
        states.held(context.place, plan.name, "saf-env service install"),
        hold(hosts, work, {node.host for node in nodes}) as lost,
        Progress() as progress,
    ):
        refuse_lost({node.host: lost[node.host] for node in nodes if node.host in lost})
        services.install(plan, hosts, nodes, progress.step)
    names = ", ".join(node.name for node in nodes)
    print(f"a reboot brings back: {names or 'nothing, there is no native node'}")


def _nodes(context: Context, arguments: argparse.Namespace) -> tuple[NodePlan, ...]:
    """The nodes that are meant: those that are named, or all that this machine may ask."""
    nodes = context.nodes(arguments.nodes)
    context.refuse_elsewhere(arguments.nodes)
    unasked = context.hosts().unasked
    return tuple(node for node in nodes if node.host not in unasked)


def _remove(context: Context, arguments: argparse.Namespace) -> None:
    from saf_env.cluster import services
    from saf_env.cluster import state as states
    from saf_env.cluster.hold import Work, hold
    from saf_env.cluster.hosts import refuse_lost

    places = {node.name: node.host for node in context.spec.nodes}
    context.refuse_unknown(arguments.nodes, list(places), "node")
    context.refuse_elsewhere(arguments.nodes)
    cluster, hosts = context.spec.name, context.hosts()
    names = arguments.nodes or [n for n, host in places.items() if host not in hosts.unasked]
    wanted = [(name, places[name]) for name in names]
    work = Work(cluster, "service remove", context.place)
    with (
        states.held(context.place, cluster, "saf-env service remove"),
        hold(hosts, work, {host for _, host in wanted}) as lost,
        Progress() as progress,
    ):
        refuse_lost({host: lost[host] for _, host in wanted if host in lost})
        removed = services.remove(cluster, hosts, wanted, progress.step)
    if removed:
        print(f"removed the service of {', '.join(removed)}; what runs of them runs on")
    else:
        print(f"no service to remove: {', '.join(names)}")


def _status(context: Context, arguments: argparse.Namespace) -> None:
    from saf_env.cluster import services

    found = services.status(context.plan, context.hosts(), _nodes(context, arguments))
    if arguments.json:
        print_json({"schema": 1, "services": [one.as_json() for one in found]})
        return
    rows = [[one.node, one.state, one.host, one.unit] for one in found]
    print_table(["node", "service", "host", "unit"], rows)
    if outdated := [one.node for one in found if one.state == "outdated"]:
        print(
            f"the service of {', '.join(outdated)} is of an earlier plan: "
            "`saf-env service install` renews it"
        )
    for one in found:
        if one.state == "failed":
            print(f"the service of {one.node} has given up; `saf-env logs {one.node}` shows why")

"""The gate: what every node has to pass before it starts, and what ``saf-env check`` shows."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from saf_env import probe
from saf_env.alone import Notify, nobody
from saf_env.cluster import state as states
from saf_env.cluster.hold import Work, hold
from saf_env.cluster.hosts import AT_ONCE, Hosts
from saf_env.cluster.project import Project
from saf_env.cluster.ways import add_ways
from saf_env.errors import HostKeyError, HostUnreachableError, PreflightError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight.base import Finding, together
from saf_env.preflight.registry import FIXABLE, judge, stopping
from saf_env.provision.facts import gather_facts
from saf_env.provision.image_facts import OF_IMAGE, container_facts, joined


def gather(
    project: Project,
    nodes: Sequence[NodePlan],
    *,
    deep: bool = False,
    tolerant: bool = False,
    keys: bool = False,
) -> dict[str, dict[str, Any]]:
    """The facts of ``nodes`` by name, gathered side by side; each engine is asked once for all.

    Args:
        project: their cluster.
        nodes: which.
        deep: hash every file.
        tolerant: of a host that cannot be reached nothing is known, and that is all.
        keys: as much of one whose key is not trusted; the check ``ssh-host-key`` tells it.

    Raises:
        HostUnreachableError: a host cannot be reached, and that is not to be borne.
    """
    plan, hosts, uv = project.plan, project.hosts(), project.uv

    def borne(error: HostUnreachableError) -> bool:
        return tolerant or (keys and isinstance(error, HostKeyError))

    def alike(group: Sequence[NodePlan]) -> dict[str, dict[str, Any]]:
        node, *beside = group
        host = hosts[node.host]
        more: dict[str, Any] = {"deep": deep, "beside": beside}
        if host.plan.here:
            first = gather_facts(node, plan, host.transport, uv.environ, uv=uv.binary, **more)
            return {node.name: first, **first.pop("beside", {})}
        try:
            hosts.refuse_given_up(node.host)
            first = gather_facts(node, plan, host.transport, {}, python=host.python, **more)
        except HostUnreachableError as error:
            if not borne(error):
                raise
            return {one.name: unreachable(error) for one in group}
        found = {node.name: first, **first.pop("beside", {})}
        key = {"host_key": {"error": ""}}
        return {name: {**seen, "facts": {**seen["facts"], **key}} for name, seen in found.items()}

    def inside(host: str) -> dict[str, dict[str, Any]]:
        there = [n for n in nodes if n.host == host]
        there = [n for n in there if n.kind == "container" or n.fallback_reason]
        try:
            hosts.refuse_given_up(host)
            engine, cluster = hosts[host].engine, plan.folder.name
            return container_facts(there, engine, plan.home, cluster, deep=deep)
        except HostUnreachableError as error:
            if not borne(error):
                raise
            unknown = dict.fromkeys(("docker", *OF_IMAGE), error.message)
            return {node.name: {"facts": {}, "unknown": unknown} for node in there}

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        asking = pool.map(inside, dict.fromkeys(node.host for node in nodes))
        looking = pool.map(alike, _groups(nodes))
        seen = {name: facts for found in looking for name, facts in found.items()}
        more = {name: facts for found in asking for name, facts in found.items()}
    return {
        n.name: joined(seen[n.name], more[n.name]) if n.name in more else seen[n.name]
        for n in nodes
    }


def _groups(nodes: Sequence[NodePlan]) -> list[list[NodePlan]]:
    """Native nodes of one host and environment together: they are looked at in one go."""
    groups: dict[tuple[str, str], list[NodePlan]] = {}
    for node in nodes:
        same = str(node.environment.path) if node.kind == "native" else f"container {node.name}"
        groups.setdefault((node.host, same), []).append(node)
    return list(groups.values())


def with_ways(
    project: Project,
    facts: Mapping[str, dict[str, Any]],
    nodes: Collection[NodePlan] = (),
    *,
    only: Collection[str] = (),
    notify: Notify = nobody,
) -> set[str]:
    """Add the ways between hosts to ``facts``; see :func:`saf_env.cluster.ways.add_ways`.

    Args:
        project: the cluster.
        facts: by node name, from :func:`gather`.
        nodes: those that are to start, which take part beside those that run; who starts them
            holds the cluster. Empty means all, by one who only looks, and holds it for the moment.
        only: ids of the checks that will be made; empty means all.
        notify: gets a line when something is tried.

    Returns:
        Names of the nodes that are up. Hosts that cannot be reached are passed over.
    """
    plan, hosts = project.plan, project.hosts()
    found, lost = hosts.look(states.read(plan.home, plan.name).recorded)
    running = {node.node for node in found if node.whole("worker")}
    # Somebody starts these, and Ray is about to want their ports; or they have just died.
    half = {node.node for node in found} - running - {node.name for node in nodes}
    part = [n for n in plan.nodes if not nodes or n in nodes or n.name in running]
    out = {*lost, *hosts.unasked}
    part = [n for n in part if n.host not in out and n.name not in half]
    heads = {plan.head.name} if plan.head.host in hosts.unasked else set()
    if heads:  # whoever joins needs it up
        part.append(plan.head)
    reasons = {name: error.message for name, error in lost.items() if name in plan.hosts}
    alone = None if nodes else _alone(plan, hosts, {node.host for node in part})
    up = running | heads
    add_ways(hosts, facts, part, up, lost=reasons, only=only, alone=alone, notify=notify)
    for name in half & facts.keys():
        facts[name]["unknown"]["ways"] = f"{name} is starting, or it has just died"
    return running


@contextlib.contextmanager
def _alone(plan: ClusterPlan, hosts: Hosts, names: Collection[str]) -> Iterator[None]:
    """Keep all who start nodes out for the moment, wherever they do: they would find ports taken.

    Raises:
        BusyError: one of them is at work.
        UsageError: this machine cannot hold a lock.
    """
    work = Work(plan.name, "check", plan.home)
    with states.held(plan.home, plan.name, "saf-env check"), hold(hosts, work, names):
        yield


def unreachable(error: HostUnreachableError) -> dict[str, Any]:
    """The facts of a node whose host cannot be reached: at most what is wrong with its key.

    The fact ``host_key`` says why the key is not trusted (``error``, empty when it is), whether
    another one was known (``changed``), and how to trust it (``remedy``).
    """
    facts: dict[str, Any] = {}
    unknown = dict.fromkeys((*probe.FACTS, "clock", "host_key", "ways"), error.message)
    if isinstance(error, HostKeyError):
        del unknown["host_key"]
        why = {"error": error.message, "changed": error.changed, "remedy": error.hint}
        facts["host_key"] = why
    return {"schema": probe.SCHEMA, "facts": facts, "unknown": unknown, "user_variables": {}}


def findings(
    plan: ClusterPlan,
    facts: Mapping[str, Mapping[str, Any]],
    lock_reasons: Sequence[str],
    *,
    ignore: Collection[str] = (),
    only: Collection[str] = (),
    running: Collection[str] = (),
) -> list[Finding]:
    """The verdicts of all checks on the nodes that ``facts`` has, node by node.

    Args:
        plan: the cluster.
        facts: by node name, from :func:`gather`.
        lock_reasons: why the lock is stale; empty when it is fresh.
        ignore: ids of checks, see :func:`saf_env.preflight.registry.judge`.
        only: as above.
        running: names of the nodes that are up.
    """
    return [
        finding
        for name in facts
        for finding in judge(
            plan,
            plan.node(name),
            facts[name],
            lock_reasons,
            ignore=ignore,
            only=only,
            running=name in running,
            together=facts,
        )
    ]


def check(
    project: Project,
    nodes: Sequence[NodePlan],
    *,
    ignore: Collection[str] = (),
    only: Collection[str] = (),
    deep: bool = False,
    notify: Notify = nobody,
) -> list[Finding]:
    """The verdicts on ``nodes`` as they are now, running or not; see :func:`findings`.

    Args:
        project: their cluster.
        nodes: those to look at.
        ignore: as above.
        only: as above.
        deep: hash every file of their environments, not only those that seem changed.
        notify: gets a line for what takes time.

    Raises:
        HostUnreachableError: a host cannot be reached, for another reason than its key.
    """
    # Whoever asks for other checks only, is told of a key as of any host out of reach.
    keys = not only or "ssh-host-key" in only
    facts = gather(project, nodes, deep=deep, keys=keys)
    running = with_ways(project, facts, only=only, notify=notify)
    return findings(project.plan, facts, project.stale(), ignore=ignore, only=only, running=running)


def refuse_failed(found: Sequence[Finding]) -> None:
    """Do nothing when no finding stops a join.

    Raises:
        PreflightError: with every failure and every requirement that could not be judged, the
            evidence and the remedy.
    """
    failed = stopping(found)
    if not failed:
        return
    nodes = ", ".join(sorted({finding.node for finding in failed}))
    lines = [line for finding, names in together(failed) for line in _told(finding, names)]
    mend = "mend what is named above"
    if any(finding.id in FIXABLE for finding in failed):
        mend += ", or let `saf-env check --fix` try"
    raise PreflightError(
        f"not fit to join: {nodes}. Nothing was started.\n" + "\n".join(lines),
        hint=f"{mend}; --ignore ID starts in spite of a check",
    )


def _told(finding: Finding, nodes: str) -> list[str]:
    lines = [f"    {nodes}: {finding.id}: {finding.summary}"]
    if finding.evidence:
        lines.append(f"        {finding.evidence}")
    if finding.hint:
        lines.append(f"        remedy: {finding.hint}")
    return lines

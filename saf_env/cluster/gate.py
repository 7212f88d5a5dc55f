"""The gate: what every node has to pass before it starts, and what ``saf-env check`` shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from saf_env.errors import PreflightError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge
from saf_env.provision.facts import gather_facts
from saf_env.transports.base import Transport
from saf_env.uv import Uv


def gather(
    plan: ClusterPlan,
    nodes: Sequence[NodePlan],
    transport: Transport,
    uv: Uv,
    *,
    deep: bool = False,
) -> dict[str, dict[str, Any]]:
    """The facts of ``nodes`` by name, gathered side by side."""

    def one(node: NodePlan) -> dict[str, Any]:
        return gather_facts(node, plan, transport, uv.environ, deep=deep, uv=uv.binary)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip((n.name for n in nodes), pool.map(one, nodes), strict=True))


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
        )
    ]


def refuse_failed(found: Sequence[Finding]) -> None:
    """Do nothing when no finding is a failure.

    Raises:
        PreflightError: with every failure, its evidence and its remedy.
    """
    failed = [finding for finding in found if finding.level == "fail"]
    if not failed:
        return
    nodes = ", ".join(sorted({finding.node for finding in failed}))
    lines = [line for finding in failed for line in _told(finding)]
    raise PreflightError(
        f"not fit to join: {nodes}. Nothing was started.\n" + "\n".join(lines),
        hint="mend what is named above, or let `saf-env check --fix` try; "
        "--ignore ID starts in spite of a check",
    )


def _told(finding: Finding) -> list[str]:
    lines = [f"    {finding.node}: {finding.id}: {finding.summary}"]
    if finding.evidence:
        lines.append(f"        {finding.evidence}")
    if finding.hint:
        lines.append(f"        remedy: {finding.hint}")
    return lines

"""``saf-env down``: stop this cluster, or some of its nodes, and nothing else."""

from __future__ import annotations

import argparse

from saf_env.cli.context import Context
from saf_env.cli.output import Progress
from saf_env.errors import ClusterFileError


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Stop, then say what was stopped. Needs no lock and no environment: only what runs counts."""
    from saf_env.cluster import state as states

    cluster = _cluster(context, arguments.nodes)
    names: list[str] = arguments.nodes
    with states.held(context.home, cluster, "saf-env down"), Progress() as progress:
        progress.step(f"stopping {', '.join(names) or f'cluster {cluster}'}")
        state = states.read(context.home, cluster)
        stopped = context.runtime(cluster).stop(names, state.recorded)
        states.write(context.home, cluster, state.without(names or state.nodes))
    if stopped:
        print(f"stopped: {', '.join(stopped)}")
    else:
        print(f"nothing of cluster {cluster} was running")
    return 0


def _cluster(context: Context, names: list[str]) -> str:
    """Name of the cluster to stop: a cluster file broken since ``up`` must not keep it running."""
    try:
        context.refuse_unknown(names, [node.name for node in context.spec.nodes], "node")
        return context.spec.name
    except ClusterFileError:
        known = [path.name for path in (context.home / ".saf" / "clusters").glob("*")]
        if len(known) != 1 or names:
            raise
        return known[0]

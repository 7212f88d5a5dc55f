"""``saf-env down``: stop this cluster, or some of its nodes, and nothing else."""

from __future__ import annotations

import argparse
import contextlib

from saf_env.cli.context import Context
from saf_env.cli.output import Progress
from saf_env.errors import BringUpError, ClusterFileError, SafEnvError, UsageError


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Stop, then say what was stopped. Needs no lock and no environment: only what runs counts."""
    if arguments.all:
        if arguments.nodes:
            raise UsageError("--all stops whole clusters; name no node with it")
        for cluster in _known(context):
            _stop(context, cluster, [])
        return 0
    if arguments.purge and arguments.nodes:
        raise UsageError("--purge is for whole clusters; name no node with it")
    cluster = _cluster(context, arguments.nodes)
    _refuse_elsewhere(context, arguments)
    if arguments.purge:
        _stop(context, cluster, [], purge=True)
        print("removed what saf-env had on other hosts; this project folder is as it was")
        return 0
    if not _stop(context, cluster, arguments.nodes):
        _tell_of_others(context, cluster)
    return 0


def _refuse_elsewhere(context: Context, arguments: argparse.Namespace) -> None:
    """Refuse what only the host that the cluster is run from does."""
    try:
        context.refuse_elsewhere(arguments.nodes)
        if arguments.purge and not context.controls:
            raise UsageError(
                f"this is {context.here}: what saf-env has on it is not removed from here",
                hint=f"run `saf-env down --purge` on {context.spec.here}",
            )
    except ClusterFileError:
        pass  # no names are given then, and what runs here is stopped


def _stop(context: Context, cluster: str, names: list[str], *, purge: bool = False) -> list[str]:
    """Stop nodes of ``cluster``, say so, and return the names of those that ran."""
    from saf_env.cluster import state as states
    from saf_env.cluster.hold import Work, hold
    from saf_env.cluster.hosts import refuse_lost

    work = Work(cluster, "down", context.place)
    with states.held(context.place, cluster, "saf-env down"), Progress() as progress:
        progress.step(f"stopping {', '.join(names) or f'cluster {cluster}'}")
        state = states.read(context.place, cluster)
        hosts = context.hosts(cluster)
        kept: dict[str, str] = {}
        with hold(hosts, work, hosts.concerned(names, state.recorded)) as unreachable:
            hosts.give_up(unreachable)
            try:
                stopped, lost = hosts.stop(names, state.recorded)
            except BringUpError:
                # What may still be there is not to be forgotten; an engine or a host may be silent.
                with contextlib.suppress(SafEnvError):
                    found, lost = hosts.look(state.recorded)
                    left = {f.node for f in found}
                    left |= {s.node for s in state.recorded if s.host in lost or not s.pid}
                    gone = [name for name in names or state.nodes if name not in left]
                    states.write(context.place, cluster, state.without(gone))
                raise
            left = {s.node for s in state.recorded if s.host in lost}
            states.write(context.place, cluster, state.without({*(names or state.nodes)} - left))
            if not lost and (not names or hosts.look(state.recorded) == ([], {})):
                _, kept = hosts.write_names(())
                hosts.leave(work.origin)
            if purge:
                from saf_env.cluster.services import elsewhere, remove

                # Their folders tell what there is: who is cut off here finds the rest again.
                remove(cluster, hosts, elsewhere(cluster, hosts), progress.step)
                hosts.purge(work.origin)
        hosts.close()
    for host, reason in kept.items() if stopped else ():
        print(f"the names of cluster {cluster} stay in /etc/hosts of {host}: {reason}")
    served = sorted(n for name in hosts.names for n in hosts[name].runtime.native.services)
    if served and not purge:
        print(
            f"stopped the service of {', '.join(served)} too; the next boot starts it again, "
            f"unless `saf-env service remove {' '.join(served)}` removes it"
        )
    if stopped or lost:
        print(f"stopped: {', '.join(stopped) or 'nothing'}")
        refuse_lost(lost)
    else:
        print(f"nothing of cluster {cluster} was running")
    return stopped


def _known(context: Context) -> list[str]:
    """Names of the clusters that were ever started from this project folder."""
    return sorted(path.name for path in (context.place / ".saf" / "clusters").glob("*"))


def _tell_of_others(context: Context, cluster: str) -> None:
    """A cluster file whose name was changed must not let the old cluster be forgotten."""
    others = [n for n in _known(context) if n != cluster and context.hosts(n).look()[0]]
    for name in others:
        print(f"cluster {name} of this project runs; `saf-env down --all` stops it too")


def _cluster(context: Context, names: list[str]) -> str:
    """Name of the cluster to stop: a cluster file broken since ``up`` must not keep it running."""
    try:
        from saf_env.cluster import state as states

        # A node that has left the cluster file can be stopped all the same.
        started = states.read(context.place, context.spec.name).nodes
        known = [*(node.name for node in context.spec.nodes), *started]
        context.refuse_unknown(names, known, "node")
        return context.spec.name
    except ClusterFileError:
        clusters = _known(context)
        if len(clusters) != 1 or names:
            raise
        return clusters[0]

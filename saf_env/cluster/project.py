"""What work on a cluster is handed: its plan, what runs its nodes, and this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from saf_env.cluster import state as states
from saf_env.cluster.gcs import Gcs
from saf_env.cluster.hosts import Hosts
from saf_env.engine import Engine
from saf_env.plan.model import ClusterPlan
from saf_env.runtimes.base import Found
from saf_env.transports.base import Transport
from saf_env.uv import Uv


class Project(Protocol):
    """One cluster of one project folder; each part is made when it is first asked for."""

    @property
    def plan(self) -> ClusterPlan:
        """The plan of the cluster file and the lock in place."""

    @property
    def transport(self) -> Transport:
        """This machine."""

    @property
    def uv(self) -> Uv:
        """The pinned uv."""

    @property
    def engine(self) -> Engine:
        """The Docker engine of this machine."""

    @property
    def gcs(self) -> Gcs:
        """The running cluster's GCS."""

    def hosts(self) -> Hosts:
        """The cluster's hosts, and what runs its nodes there."""

    def way_to_head(self) -> Transport:
        """This user's own ssh to the head's host, also where that is not asked as a rule."""

    def stale(self) -> Sequence[str]:
        """Why the lock does not fit the cluster file; empty when it does."""


def found_nodes(project: Project) -> list[Found]:
    """What runs of the cluster on the hosts that can be reached, with the help of the record."""
    state = states.read(project.plan.home, project.plan.name)
    return project.hosts().look(state.recorded)[0]

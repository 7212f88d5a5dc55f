"""Work placed on one node of a live cluster, under the time limit of a trial."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

from saf_env.errors import WorkloadError
from saf_env.workloads.kernels import greeting, plain
from saf_env.workloads.trial import NodeLostError, Trial

LOOK_AGAIN = 1.0  # seconds between two looks at whether the node is still there


def by_value(*modules: ModuleType) -> None:
    """Let the functions of ``modules`` (and of their submodules) travel to nodes by value.

    Ray pickles a module's function by name, and no node can import saf-env or a user's tests.
    """
    import ray.cloudpickle

    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)


class ClusterView(Protocol):
    """What a placement needs to know of the cluster."""

    def why_lost(self, node: str) -> str:
        """Why Ray does not have the node; empty when it has."""
        ...

    def node_id(self, node: str) -> str:
        """Ray's id of the node."""
        ...


class Placement:
    """Runs functions in Ray workers on one node, or in plain processes there.

    Functions travel by value (see :func:`by_value`): the node's
    environment needs what they import, and nothing of the caller.

    Attributes:
        name: name of the node.
        cpus: CPUs that Ray has on it.
        trial: whose time limit holds.
    """

    def __init__(self, name: str, cpus: int, cluster: ClusterView, trial: Trial) -> None:
        self.name = name
        self.cpus = cpus
        self.trial = trial
        self._cluster = cluster
        self._remotes: dict[tuple[Callable[..., Any], float], Any] = {}

    def ready(self) -> None:
        """Greet the node once per CPU, so that its workers have started.

        Raises:
            WorkloadError: a task ran elsewhere.
        """
        answers = self.map(greeting.greet, [{}] * self.cpus)
        wanted = self._cluster.node_id(self.name)
        if any(a["node_id"] != wanted for a in answers):
            raise WorkloadError("Ray ran a task of this node on another one", node=self.name)
        seen = {key: answers[0][key] for key in ("nice", "python", "numpy", "ray")}
        self.trial.note(cpus=self.cpus, worker=seen)

    def run(self, function: Callable[..., Any], /, *, cpus: float = 1, **arguments: Any) -> Any:
        """``function(**arguments)`` in a worker on the node.

        Raises:
            WorkloadTimeoutError: the trial's time was over first; the task is cancelled.
            NodeLostError: the node left the cluster.
            Exception: whatever the function raised, as Ray passes it on.
        """
        return self.map(function, [arguments], cpus=cpus)[0]

    def map(
        self, function: Callable[..., Any], arguments: Sequence[dict[str, Any]], *, cpus: float = 1
    ) -> list[Any]:
        """One task per entry of ``arguments``, each with ``cpus`` CPUs; results in order.

        Raises:
            As :meth:`run`.
        """
        import ray

        remote = self._remote(function, cpus)
        refs = [remote.remote(**a) for a in arguments]
        try:
            self._wait(refs)
            return list(ray.get(refs, timeout=self.trial.seconds_left()))
        except BaseException as error:  # also when interrupted: nothing of ours runs on
            for ref in refs:
                ray.cancel(ref, force=True)
            if isinstance(error, ray.exceptions.NodeDiedError):
                why = "the node left the cluster while it worked"
                raise NodeLostError(why, node=self.name) from None
            raise

    def timed(
        self, function: Callable[..., Any], arguments: Sequence[dict[str, Any]]
    ) -> tuple[list[Any], float]:
        """As :meth:`map`, with the wall time in seconds from the first submission."""
        started = time.perf_counter()
        results = self.map(function, arguments)
        return results, time.perf_counter() - started

    def plain(
        self, function: Callable[..., Any], arguments: Sequence[dict[str, Any]]
    ) -> tuple[list[Any], float]:
        """As :meth:`timed`, in plain processes on the node: one per entry, all at once, no Ray.

        Args:
            function: a function of a module of ``saf_env.workloads.kernels`` or of one built like
                them; JSON values in and out.
            arguments: keyword arguments, one process each.
        """
        answer = self.run(
            plain.run_together,
            cpus=0,
            source=inspect.getsource(sys.modules[function.__module__]),
            function=function.__name__,
            arguments=json.loads(json.dumps(list(arguments))),
            seconds=max(1, int(self.trial.seconds_left())),
        )
        return answer["results"], answer["seconds"]

    def _remote(self, function: Callable[..., Any], cpus: float) -> Any:
        import ray

        key = (function, cpus)
        if key not in self._remotes:
            # No retries: a suite that hides a lost worker would prove nothing.
            self._remotes[key] = ray.remote(function).options(
                num_cpus=cpus, resources={f"saf_node_{self.name}": 0.001}, max_retries=0
            )
        return self._remotes[key]

    def _wait(self, refs: list[Any]) -> None:
        """Wait for ``refs``, and no longer than the node is there.

        A task for a node that is gone stays pending for ever: Ray hopes for a new node.
        """
        import ray

        while True:
            seconds = min(LOOK_AGAIN, self.trial.seconds_left())
            if not ray.wait(refs, num_returns=len(refs), timeout=seconds, fetch_local=False)[1]:
                return
            if why := self._cluster.why_lost(self.name):
                raise NodeLostError(why, node=self.name)

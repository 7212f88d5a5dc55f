"""Asks the running cluster, through :mod:`saf_env.cluster.inside` in the head's environment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saf_env.errors import BringUpError, CommandTimeoutError
from saf_env.plan.build import token_path
from saf_env.plan.command import IMAGE_PYTHON
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.transports.base import Running, Transport
from saf_env.transports.script import script

_INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class RayNode:
    """A node as the GCS knows it.

    Attributes:
        id: Ray's id, 56 hex digits.
        name: its name in the plan; empty for one that saf-env did not start.
        run: of which start; empty as above.
        alive: whether the GCS takes it to be alive.
        address, port: of its node manager.
        resources: what it offers in total.
        told: what it said of itself when it was attested, as :func:`saf_env.probe.gather` gives it;
            None when it was not.
    """

    id: str
    name: str
    run: str
    alive: bool
    address: str
    port: int
    resources: Mapping[str, float]
    told: Mapping[str, Any] | None = None


class Gcs:
    """The GCS of one cluster, asked from where one of its nodes runs: the host, or the container.

    Args:
        plan: the cluster.
        via: the node in whose environment it is asked: the head, or, on a host that does not ask
            the head's, a native node of its own.
        transport: gives the way there when it is needed: a container may not run yet.
        environ: variables of the user there.
    """

    def __init__(
        self,
        plan: ClusterPlan,
        via: NodePlan,
        transport: Callable[[], Transport],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._plan = plan
        self.via = via
        self._transport = transport
        self._environ = environ

    def nodes(self, seconds: float = 5.0) -> list[RayNode] | None:
        """Every node that the GCS knows, or None when it does not answer within ``seconds``.

        Raises:
            BringUpError: it answers, and refuses the token; or it could not even be asked, so that
                nothing is known of it.
        """
        request = {"op": "nodes", "address": self._plan.address, "seconds": seconds}
        argv, env, stdin = self._command(request)
        try:
            result = self._transport().run(argv, env=env, timeout=seconds + 10.0, stdin=stdin)
        except CommandTimeoutError:
            return None
        answer = _answer(result.stdout)
        if answer.get("error", "").startswith("AuthenticationError"):
            raise self._refused()
        if answer.get("unreachable"):
            return None
        if "error" in answer:
            said = result.stderr.strip().splitlines()[-1:]
            raise BringUpError(
                f"nobody knows whether cluster {self._plan.name} is well, since its head's "
                f"environment cannot ask: {'; '.join([answer['error'], *said])}",
                hint="`saf-env check --deep` shows what is wrong with it; to mend it run `saf-env "
                "down`, `saf-env check --deep --fix`, `saf-env up`",
            )
        return ray_nodes(answer)

    def _refused(self) -> BringUpError:
        head, plan = self._plan.head, self._plan
        if self.via.host != head.host:
            path = token_path(plan.host_of(self.via).home, plan.name)
            return BringUpError(
                f"the running cluster {plan.name} refuses the token of {self.via.host}: "
                f"{head.host} has another one now",
                hint=f"remove {path}, then run `saf-env join {self.via.name}`, which fetches it",
            )
        return BringUpError(
            f"the running cluster {plan.name} refuses this project's token: the token "
            "file was removed or changed since the cluster was started",
            hint="put the token file back, or run `saf-env down`, then `saf-env up`; work that "
            "runs on the cluster would be lost, so this is never done by itself",
        )

    def attest(
        self,
        via: NodePlan,
        run: str,
        runs: Mapping[str, str],
        probe: tuple[str, Mapping[str, Any]],
        seconds: float,
    ) -> Running:
        """Wait until the starts ``runs`` are alive, then probe each from inside a Ray worker on it.

        Starts at once and returns: the slow part of it, importing Ray, overlaps with the start of
        the nodes. Read its output with :func:`attested`.

        Args:
            via: the node that the driver works through, on the host of :attr:`via`.
            run: its run.
            runs: node name by run, of the nodes to probe.
            probe: source text of the probe, and its request.
            seconds: how long the wait for that node, that for the others, and the probing may take.
        """
        request = {
            "op": "attest",
            "address": self._plan.address,
            "node_ip": via.advertise,
            "via": {"run": run, "name": via.name},
            "runs": dict(runs),
            "probe": probe[0],
            "probe_request": dict(probe[1]),
            "seconds": seconds,
        }
        argv, env, stdin = self._command(request)
        return self._transport().start(argv, env=env, stdin=stdin)

    def drain(self, ids: Sequence[str], reason: str) -> None:
        """Ask the GCS to give nodes no more work; their end is the runtime's matter."""
        request = {"op": "drain", "address": self._plan.address, "ids": ids, "reason": reason}
        argv, env, stdin = self._command(request)
        with suppress(CommandTimeoutError):  # it will be stopped, drained or not
            self._transport().run(argv, env=env, timeout=20.0, stdin=stdin)

    def _command(self, request: Mapping[str, Any]) -> tuple[list[str], dict[str, str], str]:
        """Command, variables and standard input by which the node's environment asks."""
        if self.via.kind == "container":
            python, env = IMAGE_PYTHON, {}
        else:
            names = ("HOME", "LANG", "USER")
            inherited = {k: v for k in names if (v := self._environ.get(k)) is not None}
            python = self.via.environment.python
            # Before its first start the token is not yet where the node will look for it.
            host = self._plan.host_of(self.via)
            token = {"RAY_AUTH_TOKEN_PATH": str(token_path(host.home, self._plan.name))}
            env = {**inherited, "PATH": "/usr/bin:/bin", **self.via.variables, **token}
        # -I: no variable, and nothing of the folder, may take the place of what is locked.
        argv, stdin = script(python, _INSIDE, request, ("-I",))
        return argv, env, stdin


def ray_nodes(answer: Mapping[str, Any]) -> list[RayNode]:
    """The nodes in an answer of ``inside.py``, the dead ones first.

    A container that its engine has started again belongs to the same start as the node that died:
    who looks one up by its run finds the living one last.
    """
    return sorted((RayNode(**node) for node in answer["nodes"]), key=lambda node: node.alive)


def attested(stdout: str) -> tuple[list[RayNode], dict[str, Any]]:
    """Nodes and facts by node name, from what the command of :meth:`Gcs.attest` printed.

    Raises:
        BringUpError: the nodes did not come alive in time, or Ray did not let the driver in.
    """
    answer = _answer(stdout)
    if "error" in answer:
        raise BringUpError(
            f"the cluster cannot be attested: {answer['error']}",
            hint="`saf-env logs` shows what the nodes said",
        )
    return ray_nodes(answer), answer["facts"]


def _answer(stdout: str) -> dict[str, Any]:
    """The last line that ``inside.py`` printed; Ray may have printed others before it."""
    try:
        answer: dict[str, Any] = json.loads(stdout.rsplit("\n", 1)[-1])
    except ValueError:
        answer = {"error": "no answer from Ray"}
    return answer

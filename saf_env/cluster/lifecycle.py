"""Brings a planned cluster up. What a node must pass before it starts is handed in.

``up`` looks first at what runs, then does only what is missing:

* a node that runs as planned is left alone;
* one that runs, and is not known to have proven what it is, has to prove it now;
* a node that is half dead (its Ray lost a process) is stopped and started again;
* without a living head nothing of the cluster is of use: Ray's workers never rejoin a new head, so
  all of it starts anew;
* a node on a host that this machine does not ask (see :attr:`Hosts.unasked`) is what Ray tells;
* a node that runs, but was started from another plan, is never stopped under running work: ``up``
  refuses and says so.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saf_env.cluster import state as states
from saf_env.cluster.attest import REQUEST, differences, probe_source
from saf_env.cluster.deaths import refuse_dead
from saf_env.cluster.gcs import Gcs, RayNode, attested
from saf_env.cluster.hosts import Host, Hosts, refuse_lost
from saf_env.cluster.same_plan import plan_digest, refuse_changed, refuse_headless
from saf_env.cluster.status import proven, seen_by_ray
from saf_env.errors import BringUpError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.runtimes.base import Found, Started, by_node
from saf_env.runtimes.native import waited
from saf_env.transports.base import Running

START_SECONDS = 90.0
"""How long each step of a start may take. A head takes 3 to 6 s on two idle cores."""

_PATIENCE = 20.0
"""Seconds that the GCS of a running head gets to answer before the cluster is taken to be dead."""

_REGISTERING = 10.0
"""Seconds that what runs gets to be known by the head: a service may just have started it."""

Gate = Callable[[Sequence[NodePlan]], None]
"""Judges nodes that are about to start; raises :class:`saf_env.errors.PreflightError`."""

Notify = Callable[[str], None]


@dataclass(frozen=True)
class UpResult:
    """What ``up`` did.

    Attributes:
        started: names of the nodes that it started, in order.
        attested: names of those that have proven what they are; both are empty when all was well.
        ray: what the GCS knew at the last attestation; None where nothing was to be attested.
        seconds: wall time from the first look to the last attestation.
    """

    started: tuple[str, ...]
    attested: tuple[str, ...]
    ray: Sequence[RayNode] | None
    seconds: float


class Lifecycle:
    """One cluster, from this machine.

    Args:
        plan: what it must be.
        hosts: start and stop its nodes.
        gcs: asks the running cluster.
        notify: gets one line for each step that takes time.
    """

    def __init__(self, plan: ClusterPlan, hosts: Hosts, gcs: Gcs, notify: Notify) -> None:
        self._plan = plan
        self._hosts = hosts
        self._gcs = gcs
        self._notify = notify
        self._recording = threading.Lock()
        self._needed: set[str] = set()
        state = states.read(plan.home, plan.name)
        self._state = state.with_place(plan.folder.name, plan.hosts)

    def up(self, gate: Gate, only: Collection[str] = ()) -> UpResult:
        """Bring every node of the plan up; see the module for what is left alone.

        Args:
            gate: judges what is about to start.
            only: names of the nodes to bring up, and the head, which they need; empty means all.

        Raises:
            PreflightError: ``gate`` refused a node; nothing was started.
            BringUpError: a node did not start, died, or is not what was planned. All that this call
                started is stopped again.
        """
        began = time.monotonic()
        wanted = self._wanted(only)
        self._needed = {n.host for n in self._plan.nodes if n.name in wanted}
        self._hosts.refuse_silence(self._state.recorded)  # silence is not "nothing runs"
        running, told = self._running()
        missing = [n for n in self._plan.nodes if n.name in wanted - running.keys()]
        runs = {name: found.run for name, found in running.items()}
        unproven = [
            name
            for name, run in runs.items()
            if not self._state.is_attested(name, run) and name not in told
        ]
        self._record(running, told)
        if not missing and not unproven:
            return UpResult((), (), None, time.monotonic() - began)
        if missing:
            self._clear(missing)
            gate(missing)
            address = self._plan.address
            runs |= {n.name: f"{plan_digest(n, address)}.{secrets.token_hex(4)}" for n in missing}
        started = tuple(node.name for node in missing)
        try:
            ray = self._bring_up(missing, runs, {*unproven, *started})
        except BaseException:
            # Also on Ctrl-C: what this call started must not outlive it.
            self._take_down(started)
            raise
        joined = tuple(n.name for n in self._plan.nodes if n.name in {*unproven, *started})
        return UpResult(started, joined, ray, time.monotonic() - began)

    def _wanted(self, only: Collection[str]) -> set[str]:
        """Names of the nodes to bring up; a head that is not ours to start has to be there."""
        if not only:
            return {node.name for node in self._plan.nodes}
        head = self._plan.head
        return {*only} if head.host in self._hosts.unasked else {head.name, *only}

    def _found(self) -> list[Found]:
        """What runs, as far as it can be seen; the hosts that this call needs must be."""
        found, lost = self._hosts.look(self._state.recorded)
        refuse_lost({name: error for name, error in lost.items() if name in self._needed})
        return found

    def _running(self) -> tuple[dict[str, Found], set[str]]:
        """What runs as planned, by name; and who of it is known by Ray to have proven it.

        Raises:
            BringUpError: something runs from another plan; or the head, which another host has to
                start, does not run.
        """
        plan, elsewhere = self._plan, self._hosts.unasked
        found = by_node(self._found())
        joins = plan.head.host in elsewhere
        if not joins and not any(f.whole("head") for f in found.values()):
            return {}, set()
        if not joins:
            refuse_changed(plan, found)
        known = self._known(found)
        if joins:
            found |= seen_by_ray(plan, elsewhere, known)
            refuse_headless(plan, found)
            refuse_changed(plan, {name: f for name, f in found.items() if f.leader is not None})
        alive = {node.run: node for node in known if node.alive}
        whole = [n for n in plan.nodes if n.name in found and found[n.name].whole(n.role)]
        running = {n.name: found[n.name] for n in whole if found[n.name].run in alive}
        told = {name for name, f in running.items() if proven(plan.node(name), alive[f.run])}
        return running, {*told, *(n.name for n in plan.nodes if n.host in elsewhere)}

    def _known(self, found: Mapping[str, Found]) -> list[RayNode]:
        """What Ray knows, once that is all that runs whole, or has had its time."""
        nodes = [n for n in self._plan.nodes if n.name in found and found[n.name].whole(n.role)]
        whole = {found[node.name].run for node in nodes}
        deadline = time.monotonic() + _REGISTERING
        while True:
            known = self._gcs.nodes(_PATIENCE) or []
            missing = whole - {node.run for node in known}
            if not known or not missing or time.monotonic() > deadline:
                return known
            time.sleep(0.5)

    def _record(self, running: Mapping[str, Found], told: Collection[str]) -> None:
        """Write down what runs here or on hosts that we ask, and is not, or no more, in the state.

        Args:
            running: by name.
            told: names of those that Ray knows to have proven what they are.
        """
        for name, found in running.items():
            if found.leader is not None and not self._state.is_attested(name, found.run):
                self._state = self._state.with_started(found.leader)
                if name in told:
                    self._state = self._state.with_attested([name])
        states.write(self._plan.home, self._plan.name, self._state)

    def _clear(self, missing: Sequence[NodePlan]) -> None:
        """Stop what is left of nodes that are to start, and of nodes that the plan has no more.

        Where the head is to start, that is everything: nobody joins a new one.
        """
        planned = {node.name for node in self._plan.nodes}
        names = {node.name for node in missing}
        found = {f.node for f in self._found()}
        everything = self._plan.head.name in names
        leftovers = sorted(found if everything else found & names | found - planned)
        if leftovers:
            self._notify(f"stopping what is left of {', '.join(leftovers)}")
            self._stop(leftovers)

    def _bring_up(
        self, missing: Sequence[NodePlan], runs: Mapping[str, str], joining: set[str]
    ) -> list[RayNode]:
        plan = self._plan
        wanted = {run: name for name, run in runs.items() if name in joining}
        probe, via = (probe_source(), REQUEST), self._driver_node(runs)
        question = (via, runs[via.name], wanted, probe, START_SECONDS)
        asking: Running | None = None
        try:
            if via.kind == "native":  # loading Ray overlaps with the start of the nodes
                asking = self._gcs.attest(*question)
            self._start(missing, runs)
            if asking is None:
                asking = self._gcs.attest(*question)
            self._notify(f"waiting for Ray on {', '.join(sorted(joining))}")
            output = self._watched(asking, runs)
        finally:
            if asking is not None:
                asking.stop()
        nodes, facts = attested(output)
        self._judge([n for n in plan.nodes if n.name in joining], nodes, facts)
        self._state = self._state.with_attested(joining)
        states.write(plan.home, plan.name, self._state)
        return nodes

    def _driver_node(self, runs: Mapping[str, str]) -> NodePlan:
        """The node that the driver which attests works through: the head, or one of this host."""
        via = self._gcs.via
        if via.name in runs:
            return via
        beside = [n for n in self._plan.on(via.host) if n.kind == "native" and n.name in runs]
        if not beside:
            raise BringUpError(
                f"no native node of {via.host} runs, and Ray is asked from one",
                hint=f"run `saf-env join {via.name}` first",
            )
        return beside[0]

    def _start(self, missing: Sequence[NodePlan], runs: Mapping[str, str]) -> None:
        """Start the head, the containers with it, and native workers once it is about to register.

        Containers wait for the head by themselves.
        """
        plan, head = self._plan, self._plan.head
        natives = [node for node in missing if node.kind == "native"]
        if head in natives:
            self._start_natives([head], runs)
        if containers := [node for node in missing if node.kind == "container"]:
            self._tell(containers)
            for node in containers:
                # An engine that goes away in the middle may have made them: `down` must look.
                self._record_start(Started(node.name, runs[node.name], 0, "", node.host))
            for started in self._hosts.start_containers(plan, containers, runs):
                self._record_start(started)
        if head in natives:
            self._wait_for_head()
        self._start_natives([node for node in natives if node.role == "worker"], runs)

    def _start_natives(self, nodes: Sequence[NodePlan], runs: Mapping[str, str]) -> None:
        """Start native nodes, those of several hosts side by side."""
        self._tell(nodes)
        address = self._plan.address

        def on(host: Host) -> None:
            for node in nodes:
                if node.host == host.plan.name:
                    self._record_start(self._hosts.start(node, address, runs[node.name]))

        _, lost = self._hosts.ask((node.host for node in nodes), on)
        refuse_lost(lost)

    def _tell(self, nodes: Sequence[NodePlan]) -> None:
        for node in nodes:
            self._notify(f"starting {node.name} ({node.role}, {node.kind}) on {node.host}")

    def _record_start(self, started: Started) -> None:
        with self._recording:  # hosts start their nodes side by side
            self._state = self._state.with_started(started)
            states.write(self._plan.home, self._plan.name, self._state)

    def _wait_for_head(self) -> None:
        """Until the last thing that a head opens before it registers, its agent's port, answers.

        A worker that asks for the head too early waits two seconds before it asks again; one that
        starts now has loaded Ray when the head is there.
        """
        head = self._plan.head
        port = head.ports.dashboard_agent_grpc
        leader = self._state.nodes[head.name].started
        native = self._hosts[head.host].runtime.native
        waiting = native.wait([(leader, head)], (head.address, port), START_SECONDS)
        answers, dead = waited(_output(waiting))
        refuse_dead(dead)
        if not answers:
            raise BringUpError(
                f"{head.name}: its agent is silent on port {port} after {START_SECONDS:.0f} s",
                hint=f"`saf-env logs {head.name}` shows what it said",
                node=head.name,
            )

    def _watched(self, asking: Running, runs: Mapping[str, str]) -> str:
        """What ``asking`` prints once it is done; a node that dies before ends the wait at once."""
        seconds = 4 * START_SECONDS  # more than all that is asked may take
        known = self._state.nodes
        # Only what this start relies on: a node that was lost before is not its matter.
        here = [n for n in self._plan.nodes if n.host in self._needed]
        relied = [n for n in here if n.name in known and n.name in runs]
        recorded = [
            (known[n.name].started, n) for n in relied if known[n.name].started.run == runs[n.name]
        ]
        watches = self._hosts.watch(recorded, seconds)
        try:
            while (done := asking.poll()) is None:
                seen = [watch.poll() for watch in watches]
                refuse_dead([died for dead in seen for died in dead or ()])
                if None in seen:
                    raise BringUpError(
                        f"the cluster was not ready after {seconds:.0f} s",
                        hint="`saf-env logs` shows what the nodes said",
                    )
                time.sleep(0.01)
        finally:
            for watch in watches:
                watch.stop()
        return done.stdout

    def _judge(
        self, joining: Sequence[NodePlan], nodes: Sequence[RayNode], facts: Mapping[str, Any]
    ) -> None:
        """Drain and stop the nodes that are not what was planned, and say so."""
        silent = {"error": "no answer"}
        wrong = {
            node.name: difference
            for node in joining
            if (difference := differences(node, facts.get(node.name, silent)))
        }
        if not wrong:
            return
        ids = [node.id for node in nodes if node.name in wrong and node.alive]
        self._gcs.drain(ids, "saf-env: not what the lock says")
        self._stop(list(wrong))
        lines = [f"    {name}: {line}" for name, found in wrong.items() for line in found]
        raise BringUpError(
            f"not what was planned, seen from inside: {', '.join(wrong)}. "
            "Drained, and stopped again.\n" + "\n".join(lines),
            hint="`saf-env check --deep --fix` makes their environments anew",
        )

    def _take_down(self, names: Sequence[str]) -> None:
        if not names:  # to the runtime that would mean: all
            return
        self._notify("taking down what was started")
        try:
            self._hosts.keep_logs(self._plan, names)
            self._stop(names)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"again, so {', '.join(names)} may still run: `saf-env down` ends what is left"
            ) from None

    def _plan_host(self, name: str) -> str:
        """Where a node is, by the plan or by the record of its start."""
        started = self._state.nodes.get(name)
        planned = next((n.host for n in self._plan.nodes if n.name == name), "")
        return started.started.host if started else planned

    def _stop(self, names: Sequence[str]) -> None:
        _, lost = self._hosts.stop(names, self._state.recorded)
        for error in lost.values():  # why they are stopped is told after this
            self._notify(error.message)
        left = {node for node in names if self._plan_host(node) in lost}
        self._state = self._state.without({*names} - left)
        states.write(self._plan.home, self._plan.name, self._state)


def _output(running: Running) -> str:
    """What ``running`` printed, once it is done; ended with us when we are interrupted."""
    try:
        while (result := running.poll()) is None:
            time.sleep(0.005)
    finally:
        running.stop()
    return result.stdout

"""Container nodes: Ray in Linux containers that Docker Compose starts and stops.

The engine is asked by labels, never by names: a container is ours when it carries the cluster's id.
A node in a tailnet has a sidecar beside it, which is started and stopped with it and is no node.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saf_env.engine import Engine, unwell
from saf_env.errors import BringUpError
from saf_env.plan.build import CONTAINER_TEMP
from saf_env.plan.command import IMAGE_PYTHON
from saf_env.plan.compose import (
    LABEL_CLUSTER,
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_RUN,
    LABEL_SIDECAR,
    Handed,
    rendered,
    services_of,
    state_volume,
)
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.provision.folders import write_atomically
from saf_env.runtimes import agent
from saf_env.runtimes.base import Died, Found, Started
from saf_env.spec.model import sidecar
from saf_env.transports.base import CommandResult
from saf_env.transports.container import ContainerTransport
from saf_env.transports.script import script

_AGENT = Path(agent.__file__)

_COMPOSE_SECONDS = 180.0
_POLL_SECONDS = 0.3

_GONE = re.compile(
    r"No such (container|network|image|volume)|network \S+ not found|already in progress|"
    r"image is (being used|referenced)"
)
"""What Docker says of something that somebody else removes, has removed, or needs."""


class ComposeRuntime:
    """Runs the container nodes of one cluster on one host.

    Args:
        engine: of the host.
        cluster_id: marks the containers, and names the compose project.
        file: the compose file, on this machine.
        hand: hands the token over to the containers, and, if its argument is a file, a tailnet's
            key; see :mod:`saf_env.provision.handing`.
    """

    def __init__(
        self, engine: Engine, cluster_id: str, file: Path, hand: Callable[[Path | None], Handed]
    ) -> None:
        self._engine = engine
        self._id = cluster_id
        self._file = file
        self._hand = hand

    def start(
        self, plan: ClusterPlan, nodes: Sequence[NodePlan], runs: Mapping[str, str]
    ) -> list[Started]:
        """Start ``nodes``, all at once, and return when their containers run.

        Args:
            plan: their cluster.
            nodes: which to start.
            runs: the run word of every container node of the plan, also of those that run.

        Raises:
            BringUpError: the engine or Compose refuses, others can read a tailnet's key, or the
                Compose project has containers of somebody else.
        """
        self._refuse_strangers()
        tailnet = [node for node in nodes if node.network == "tailscale"]
        known = tuple(n for n in plan.on(nodes[0].host) if n.kind == "container" and n.name in runs)
        needs_key = any(node.network == "tailscale" for node in known)
        key = plan.home / plan.tailscale.auth_key_file if needs_key and plan.tailscale else None
        write_atomically(self._file, rendered(plan, known, runs, self._hand(key)))
        names = [node.name for node in nodes]
        for node in tailnet:
            self._make_volume(state_volume(self._id, node), node.name)
        services = [service for node in nodes for service in services_of(node)]
        # Whether an image may be pulled is the file's to say: those of nodes never are.
        arguments = ["up", "--detach", "--no-deps", "--no-build"]
        # Anonymous volumes anew: an old session would be mistaken for this one's.
        arguments += ["--force-recreate", "--renew-anon-volumes", *services]
        result = self._compose(*arguments)
        if not result.ok:
            self._engine.reachable()
            said = self._sidecars_say(names) if tailnet else ""
            raise unwell(result, f"cannot start {', '.join(names)}{said}")
        # Also those that have ended already: whoever watches them says why.
        made = {c["Labels"][LABEL_NODE]: c for c in self._containers()}
        return [Started(name, runs[name], 0, made[name]["Id"]) for name in names if name in made]

    def find(self, recorded: Sequence[Started] = ()) -> list[Found]:
        """See :meth:`saf_env.runtimes.base.Runtime.find`. Nothing when no engine answers."""
        return [_found(container) for container in self._containers()]

    def stop(self, names: Sequence[str], recorded: Sequence[Started] = ()) -> list[str]:
        """See :meth:`saf_env.runtimes.base.Runtime.stop`: drained, then removed with all theirs.

        Where there is no docker command any more, its containers are taken to be gone with it.
        """
        if not self.answers(recorded, names):
            return []
        all_nodes, all_sidecars = self._listed(LABEL_NODE), self._listed(LABEL_SIDECAR)
        nodes = [c for c in all_nodes if not names or c["Labels"][LABEL_NODE] in names]
        sidecars = [c for c in all_sidecars if not names or c["Labels"][LABEL_SIDECAR] in names]
        stopped = sorted({c["Labels"][LABEL_NODE] for c in nodes})
        what = f"cannot stop {', '.join(stopped) or 'what is left of the cluster'}"
        # By id, not by Compose's project: what is not ours may have the same name. A node goes
        # before the sidecar that it is reached through, so that the head hears it sign off.
        for group in (nodes, sidecars):
            if running := [c["Id"] for c in group if c["State"] != "exited"]:
                self._act(what, "stop", *running)
        if everything := [c["Id"] for c in (*nodes, *sidecars)]:
            self._act(what, "rm", "--force", "--volumes", *everything)
        last = len(everything) == len(all_nodes) + len(all_sidecars)
        if last and (networks := self._networks()):
            self._act(what, "network", "rm", *networks)
        return stopped

    def purge(self) -> None:
        """Remove what outlives the containers: images of ours, and who the cluster's sidecars are.

        An image may have been built for another cluster first, so those that no container has are
        removed, whoever's they are: they can be made again.

        Raises:
            BringUpError: something cannot be removed.
        """
        if not self._engine.answers():
            return
        ours = f"label={LABEL_CLUSTER}"
        listed = self._engine.run("image", "ls", "--filter", ours, "--quiet")
        if images := list(dict.fromkeys(listed.stdout.split())):
            self._act("cannot remove the images", "image", "rm", *images)
        listed = self._engine.run("volume", "ls", "--filter", f"{ours}={self._id}", "--quiet")
        if volumes := listed.stdout.split():
            self._act("cannot remove the volumes", "volume", "rm", *volumes)

    def answers(self, recorded: Sequence[Started], names: Sequence[str] = ()) -> bool:
        """Whether the engine can tell what runs of the containers of ``names``, or of all.

        Raises:
            BringUpError: it cannot, and such containers were ``recorded``: they may run.
        """
        if self._engine.answers():
            return True
        here = recorded_here(recorded, names)
        if not here or self._engine.gone():
            return False
        left = ", ".join(s.node for s in here)
        raise BringUpError(
            f"{self._engine.transport.host}: the Docker engine does not answer; "
            f"the containers of {left} may still be there",
            hint="start the engine, then run `saf-env down`, which takes away what is left",
        )

    def watch(self, started: Sequence[Started]) -> Watch:
        """Look whether one of ``started`` ends; see :class:`Watch`."""
        return Watch(self._engine, started)

    def transport(self, node: str) -> ContainerTransport:
        """Into the running container of ``node``.

        Raises:
            BringUpError: it does not run.
        """
        for container in self._containers():
            if container["Labels"][LABEL_NODE] == node and container["State"] == "running":
                return ContainerTransport(
                    self._engine.transport, self._engine.variables(), container["Id"], node
                )
        raise BringUpError(f"the container of {node} does not run", node=node)

    def logs(
        self, node: str, offsets: Mapping[str, int], limit: int
    ) -> tuple[dict[str, str], dict[str, int]]:
        """New text by log file of ``node`` beyond ``offsets``, and the new offsets.

        Ray's own logs are read where they are, in the container, by the agent. What its ``ray
        start`` printed comes from the engine, which has it after the container's end too.
        """
        texts, now = {}, dict(offsets)
        for container in self._containers():
            if container["Labels"][LABEL_NODE] != node:
                continue
            said = f"{node}.log"
            if said not in offsets:
                texts[said], now[said] = _output(self._engine, container["Id"], 1000)[-limit:], 0
            if container["State"] == "running":
                found = self._inside(container["Id"], node, offsets, limit)
                texts |= found.get("texts", {})
                now |= found.get("offsets", {})
        return texts, now

    def keep_logs(self, node: str, log: Path, folder: Path) -> None:
        """Write what the container of ``node`` said to ``log``, and Ray's own logs into ``folder``.

        Its removal would take them along. What cannot be had is passed over: there is a failure to
        be told already.
        """
        with contextlib.suppress(BringUpError, OSError, tarfile.TarError):
            for container in self._containers():
                if container["Labels"][LABEL_NODE] == node:
                    agent.private_folder(str(log.parent))
                    log.write_text(_output(self._engine, container["Id"], 10_000), "utf-8")
                    folder.mkdir(parents=True, exist_ok=True)
                    self._copy_logs(container["Id"], folder)

    def _copy_logs(self, container: str, folder: Path) -> None:
        with self._engine.api() as api:
            parts, _ = api.get_archive(container, str(CONTAINER_TEMP / "session_latest" / "logs"))
            data = b"".join(parts)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                name = os.path.basename(member.name)  # a task may have made the names in there
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and name.endswith((".log", ".out", ".err")):
                    (folder / name).write_bytes(file.read())

    def _inside(
        self, container: str, node: str, offsets: Mapping[str, int], limit: int
    ) -> dict[str, Any]:
        transport = ContainerTransport(
            self._engine.transport, self._engine.variables(), container, node
        )
        request = {
            "op": "logs",
            "files": [],
            "folders": [str(CONTAINER_TEMP / "session_latest" / "logs")],
            "offsets": {k: v for k, v in offsets.items() if k.startswith("/")},
            "limit": limit,
        }
        argv, stdin = script(IMAGE_PYTHON, _AGENT, request)
        result = transport.run(argv, env={}, timeout=30.0, stdin=stdin)
        answer: dict[str, Any] = json.loads(result.stdout) if result.ok else {}
        return answer

    def _containers(self, kind: str = LABEL_NODE) -> list[dict[str, Any]]:
        """The containers of nodes; with ``LABEL_SIDECAR`` those of sidecars.

        Nothing when no engine answers.
        """
        return self._listed(kind) if self._engine.answers() else []

    def _listed(self, kind: str) -> list[dict[str, Any]]:
        labels = [f"{LABEL_CLUSTER}={self._id}", kind]
        with self._engine.api() as api:
            found: list[dict[str, Any]] = api.containers(all=True, filters={"label": labels})
        return found

    def _sidecars_say(self, nodes: Sequence[str]) -> str:
        """What keeps sidecars from being healthy, such as another address than was planned."""
        said = ""
        for container in self._containers(LABEL_SIDECAR):
            name = container["Labels"][LABEL_SIDECAR]
            with self._engine.api() as api:
                seen = api.inspect_container(container["Id"])["State"]
            checks = seen.get("Health", {}).get("Log") or [{"Output": ""}]
            if name in nodes and seen.get("Health", {}).get("Status") != "healthy":
                texts = (checks[-1]["Output"], _output(self._engine, container["Id"], 10))
                said += f"\n{sidecar(name)}: " + "\n".join(text.strip() for text in texts)
        return said

    def _make_volume(self, name: str, node: str) -> None:
        """Make a volume that Compose does not remove; nothing happens when it is there."""
        labels = (f"{LABEL_CLUSTER}={self._id}", f"{LABEL_SIDECAR}={node}")
        marks = [word for label in labels for word in ("--label", label)]
        result = self._engine.run("volume", "create", *marks, name)
        if not result.ok:
            raise unwell(result, f"cannot make the volume {name}", node)

    def _networks(self) -> list[str]:
        """Ids of the cluster's networks."""
        label = f"{LABEL_CLUSTER}={self._id}"
        with self._engine.api() as api:
            return [str(network["Id"]) for network in api.networks(filters={"label": label})]

    def _act(self, what: str, *arguments: str) -> None:
        """Run a docker command; ``what`` could not be done is said when it fails."""
        result = self._engine.run(*arguments, timeout=_COMPOSE_SECONDS)
        if result.ok:
            return
        self._engine.reachable()
        said = result.stderr.splitlines()
        if not said or not all(_GONE.search(line) for line in said):
            raise unwell(result, what)

    def _refuse_strangers(self) -> None:
        """Raise BringUpError when a container that is not ours has the name of our project.

        Compose would take it for one of the cluster's, and put another in its place.
        """
        label = f"com.docker.compose.project={self._id}"
        with self._engine.api() as api:
            there = api.containers(all=True, filters={"label": label})
        others = [c for c in there if c["Labels"].get(LABEL_CLUSTER) != self._id]
        strangers = [(c["Names"] or [c["Id"][:12]])[0].lstrip("/") for c in others]
        if strangers:
            raise BringUpError(
                f"{self._engine.transport.host}: the Compose project {self._id} has containers "
                f"that are not this cluster's: {', '.join(strangers)}",
                hint=f"remove them (`docker rm --force {' '.join(strangers)}`), or give the "
                "cluster another name in the cluster file",
            )

    def _compose(self, *arguments: str) -> CommandResult:
        project = ("--project-name", self._id, "--file", str(self._file), "--progress", "plain")
        return self._engine.run("compose", *project, *arguments, timeout=_COMPOSE_SECONDS)


class Watch:
    """Whether containers that were just started keep running.

    Args:
        engine: their engine.
        started: which.
    """

    def __init__(self, engine: Engine, started: Sequence[Started]) -> None:
        self._engine = engine
        self._started = {s.started: s for s in started}
        self._restarts: dict[str, int] = {}
        self._next = 0.0

    def poll(self) -> list[Died]:
        """Those that have ended, or that their restart policy has started again."""
        if not self._started or time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + _POLL_SECONDS
        return [d for identity, s in self._started.items() if (d := self._died(identity, s))]

    def _died(self, identity: str, started: Started) -> Died | None:
        from docker.errors import NotFound, NullResource

        with self._engine.api() as api:
            try:
                seen = api.inspect_container(identity)
            except (NotFound, NullResource):
                return Died(started.node, "its container was removed")
        # One that has come back before this watch is as good as any.
        before = self._restarts.setdefault(identity, seen["RestartCount"])
        if seen["State"]["Running"] and seen["RestartCount"] == before:
            return None
        why = ["the memory limit was hit"] if seen["State"]["OOMKilled"] else []
        return Died(started.node, "\n".join([_output(self._engine, identity, 40), *why]))


def recorded_here(recorded: Sequence[Started], names: Sequence[str]) -> list[Started]:
    """Those of the ``recorded`` starts that are containers, of the nodes ``names`` or of all."""
    return [s for s in recorded if s.pid == 0 and (not names or s.node in names)]


def _found(container: Mapping[str, Any]) -> Found:
    labels = container["Labels"]
    node, run = labels[LABEL_NODE], labels[LABEL_RUN]
    if container["State"] != "running":
        return Found(node, run, {}, None)
    # Not by its health, which is up to ten seconds old: whether the raylet lives is Ray's to say.
    leader = Started(node, run, 0, container["Id"])
    head = {"gcs": 1} if labels[LABEL_ROLE] == "head" else {}
    return Found(node, run, {"leader": 1, "raylet": 1, **head}, leader)


def _output(engine: Engine, identity: str, lines: int) -> str:
    try:
        with engine.api() as api:
            data: bytes = api.logs(identity, tail=lines)
    except BringUpError as error:
        return f"its output cannot be had: {error.message}"
    return data.decode(errors="replace")

"""What `up` itself takes for each host more, where all hosts only wait, then say that all is well.

No process is started on them, and no Ray: each is a transport that answers after a moment, for the
probe with what it sees of an environment on this machine. All else is done as ever, but in this
process. The programs `ssh` that a real transport starts are not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.measure import Pair, Subject
from benchmarks.project import PORT, Project
from saf_env.cli.commands import up
from saf_env.cli.context import Context
from saf_env.cluster.connect import Connections
from saf_env.cluster.hosts import AT_ONCE
from saf_env.lock.make import make
from saf_env.plan.build import build, token_path
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.platforms import this_platform
from saf_env.preflight.registry import IDS
from saf_env.provision.environments import ensure_environment, marker_of
from saf_env.provision.facts import gather_facts
from saf_env.runtimes.agent import MARK
from saf_env.transports.base import CommandResult
from saf_env.transports.local import LocalTransport

__all__ = ["NAME", "ROUNDS", "SUBJECTS", "rounds"]

NAME = "many hosts"
ROUNDS = 5
SUBJECTS = (
    Subject("host-more", "saf-env up, each host more", "waiting for its answers", 0.05, "seconds"),
)

FEW, MANY = 2, 32
_WAIT = 0.02  # seconds for every answer

_TEXT = """
[cluster]
name = "many"
port = {port}
[python]
version = ">=3.11,<3.14"
[environment]
requires = ["ray[default]==2.60.0", "numpy"]
exclude_newer = "2026-11-10"
"""
_HOST = """
[hosts.h{number}]
address = "10.99.0.{number}"
platform = "{platform}"
ssh = "h{number}"
[[nodes]]
name = "n{number}"
host = "h{number}"
kind = "native"
cpus = 1
"""
_SURVEY = "system Linux\nmachine x86_64\nglibc glibc 2.36\nlogin /root\nfree 99999999\n"


def rounds(project: Project) -> Iterator[dict[str, Pair]]:
    """One measurement a round, for ever; before them the probe looks at a real environment."""
    seen: dict[str, Any] = {}
    made = []
    for count in (FEW, MANY):
        context = _context(project.home / str(count), count)
        make(context.spec, context.home, context.uv, notify=_nobody)
        seen = seen or _look(context)
        made.append(World(context, seen))
    few, many = made
    while True:
        fewer, more = few.up(), many.up()
        # Every question is asked of so many at once, and of the others once these have answered.
        again = math.ceil(MANY / AT_ONCE) - math.ceil(FEW / AT_ONCE)
        waited = more[1] / MANY * again * _WAIT
        ours = more[0] - fewer[0]
        yield {"host-more": (ours / (MANY - FEW), waited / (MANY - FEW))}


def _context(home: Path, count: int) -> Context:
    here = this_platform()
    assert here is not None
    hosts = [_HOST.format(number=n, platform=here.name) for n in range(1, count + 1)]
    home.mkdir(parents=True)
    file = home / "cluster.toml"
    head = f'{hosts[0]}role = "head"\n'
    file.write_text("".join([_TEXT.format(port=PORT), head, *hosts[1:]]), encoding="utf-8")
    return Context(home, file)


def _look(context: Context) -> dict[str, Any]:
    """What the probe says of a node whose environment is on this machine."""
    plan = build(context.spec, context.lock, context.home, here="h1")
    ensure_environment(plan.head.environment, context.uv, _nobody)
    seen = gather_facts(plan.head, plan, LocalTransport(), {}, uv=context.uv.binary)
    del seen["user_variables"], seen["facts"]["clock"]
    return seen


def _nobody(_: str) -> None:
    """Nobody wants to know."""


@dataclass
class World:
    """A cluster of hosts that wait.

    Attributes:
        context: of its project.
        seen: what the probe says of every node, but for what is its host's own.
        runs: the mark of each node that was started, by name.
        calls: how many commands there were.
    """

    context: Context
    seen: Mapping[str, Any]
    runs: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    _hosts: dict[str, Waiting] = field(default_factory=dict)

    @property
    def plan(self) -> ClusterPlan:
        return self.context.plan

    def up(self) -> tuple[float, int]:
        """Bring it up from nothing; the seconds, and how many commands that took."""
        home = self.context.home
        shutil.rmtree(home / ".saf" / "clusters", ignore_errors=True)
        self.runs, self.calls = {}, 0
        self.context = Context(home, self.context.file)
        self._hosts = {node.host: Waiting(node, self) for node in self.plan.nodes}
        usual = {"nodes": [], "partial": False, "json": True, "module": "up"}
        arguments = argparse.Namespace(**usual, ignore=sorted(IDS))  # judged all the same
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(Connections, "_way", self._way))
            # The driver's is this machine's.
            stack.enter_context(mock.patch("saf_env.cluster.prepare.ensure_environment"))
            stack.enter_context(mock.patch("saf_env.cluster.prepare.ready"))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            began = time.perf_counter()
            up.run(self.context, arguments)
            return time.perf_counter() - began, self.calls

    def _way(self, host: Any, _: Path) -> Waiting:
        return self._hosts[host.name]

    def attested(self) -> str:
        """What Ray tells once all are up, and what they say of themselves."""
        nodes = [
            {
                "id": f"{number:056x}",
                "name": node.name,
                "run": self.runs[node.name],
                "alive": True,
                "address": node.address,
                "port": node.ports.node_manager,
                "resources": {},
            }
            for number, node in enumerate(self.plan.nodes)
        ]
        facts = {node.name: dict(self.seen) for node in self.plan.nodes}
        return json.dumps({"nodes": nodes, "facts": facts})


class Waiting:
    """A host that waits: as much of a FileTransport as `up` needs."""

    def __init__(self, node: NodePlan, world: World) -> None:
        self.host = node.host
        self._node = node
        self._world = world

    def run(self, argv: Sequence[str], *, stdin: str = "", **_: object) -> CommandResult:
        """Wait, then answer."""
        self._world.calls += 1
        time.sleep(_WAIT)
        return _result(argv, self._said(argv, stdin))

    def start(self, argv: Sequence[str], *, stdin: Any = "", **_: object) -> Answer:
        """Answer after a while, or, as what holds, listens or watches, go on until the end."""
        self._world.calls += 1
        world = self._world
        if not isinstance(stdin, str):  # the holder of the lock, which says again what it hears
            heard = ["held\n"]
            hearing = threading.Thread(
                target=lambda: heard.extend(part.decode() for part in stdin), daemon=True
            )
            hearing.start()
            return Answer(lambda: _result(argv, "".join(heard)), lambda: not hearing.is_alive())
        request = json.loads(stdin.partition("\n")[2])
        if request["op"] == "attest":
            return Answer(
                lambda: _result(argv, world.attested()),
                lambda: len(world.runs) == len(world.plan.nodes),
            )
        said = self._said(argv, stdin) + "\n"
        ends = request["op"] == "wait" and request["port"] is not None
        return Answer(lambda: _result(argv, said), lambda: ends)

    def close(self) -> None:
        """There is nothing to close."""

    def _said(self, argv: Sequence[str], stdin: str) -> str:
        if argv[-1].startswith("saf-env/"):
            request = json.loads(stdin.partition("\n")[2])
            return json.dumps(self._answer(argv[-1].removeprefix("saf-env/"), request))
        text = argv[2]
        if "uname" in text:
            return _SURVEY
        if "sha256sum" in text:
            token = token_path(self._world.context.home, self._world.plan.name)
            return f"{hashlib.sha256(token.read_bytes()).hexdigest()}  -\n"
        return json.dumps(marker_of(self._node.environment)) + "\n"

    def _answer(self, file: str, request: Mapping[str, Any]) -> dict[str, Any]:
        node, runs = self._node, self._world.runs
        if file == "probe.py":
            seen, own = self._world.seen["facts"], {}
            own["platform"] = {**seen["platform"], "hostname": node.host, "time": time.time()}
            where = [node.address]
            own["address"] = {"address": node.address, "resolved": where, "own": where}
            own["address"] |= {"outgoing": where, "default": ""}
            unknown = dict(self._world.seen["unknown"])
            return {**self._world.seen, "facts": {**seen, **own}, "unknown": unknown}
        if request["op"] == "find":
            roles = ("leader", "raylet", "gcs") if node.role == "head" else ("leader", "raylet")
            process = {"node": node.name, "run": runs.get(node.name), "pid": 1, "started": "1"}
            return {"processes": [{**process, "role": r} for r in roles if node.name in runs]}
        if request["op"] == "start":
            runs[node.name] = request["env"][MARK].rpartition("/")[2]
        answers: dict[str, dict[str, Any]] = {
            "start": {"pid": 1, "started": "1"},
            "names": {"changed": False, "refused": ""},
            "wait": {"open": True},
            "listen": {"taken": []},
            "call": {
                "calls": [["", 0.2] for _ in request.get("targets", ())],
                "rates": [1e9 for _ in request.get("bursts", ())],
            },
        }
        return answers[request["op"]]


@dataclass
class Answer:
    """What a host will have said. A :class:`saf_env.transports.base.Running`."""

    result: Callable[[], CommandResult]
    over: Callable[[], bool]
    stopped: bool = False
    at: float = field(default_factory=lambda: time.monotonic() + _WAIT)

    def printed(self) -> str:
        """Nothing at first."""
        return self.result().stdout if time.monotonic() >= self.at else ""

    def poll(self) -> CommandResult | None:
        """All of it, once it is over."""
        ended = self.stopped or (time.monotonic() >= self.at and self.over())
        return self.result() if ended else None

    def stop(self) -> None:
        """Let it be over."""
        self.stopped = True


def _result(argv: Sequence[str], said: str) -> CommandResult:
    return CommandResult(tuple(argv), "", 0, said, "", _WAIT)

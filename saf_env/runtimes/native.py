"""Native nodes: Ray as processes of the host, in the locked environment.

All that happens on the host is done by :mod:`saf_env.runtimes.agent`, sent over the transport.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.errors import BringUpError
from saf_env.plan.command import environment_path, ray_start
from saf_env.runtimes import agent
from saf_env.runtimes.base import Died, Found, Started
from saf_env.transports.script import script

if TYPE_CHECKING:
    from saf_env.plan.model import NodePlan
    from saf_env.transports.base import Running, Transport

_AGENT = Path(agent.__file__)
_PLAIN = {"PATH": "/usr/bin:/bin"}

_WORDS = {
    "start": "start a node",
    "find": "look for processes",
    "stop": "stop nodes",
    "logs": "read logs",
    "names": "write /etc/hosts",
}

# Services are ended first, which takes up to a minute; the head's after the others'.
_SECONDS = {"start": 120.0, "stop": 180.0}

SERVICE_LOG = "service.log"
"""What the service of a node says, in its folder."""

GRACE = 5.0
"""Seconds that a raylet gets to end its workers; it takes 0.06 when they do not resist."""

_INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ", "USER")


class NativeRuntime:
    """Runs the native nodes of one cluster on one host.

    Args:
        transport: the host.
        python: a CPython on the host for the agent: the environment's, or any from 3.9 on.
        folder: the cluster's temp folder on the host; its last part is the cluster id.
        token: the file there with the cluster's token.
        environ: the host user's variables, as far as they are known; nodes get a few of them.
        here: the host is this machine: what starts no process is done in this one, quicker.
    """

    def __init__(
        self,
        transport: Transport,
        python: Path,
        folder: Path,
        token: Path,
        environ: Mapping[str, str] | None = None,
        *,
        here: bool = False,
    ) -> None:
        self._transport = transport
        self._python = python
        self._folder = folder
        self._token = token
        self._environ = os.environ if environ is None else environ
        self._here = here
        self._services = token.parent / "services"
        self.services: set[str] = set()
        """Names of nodes that were stopped and have a service, which the next boot starts."""

    def start(self, node: NodePlan, address: str, run: str) -> Started:
        """See :meth:`saf_env.runtimes.base.Runtime.start`."""
        request = {**self.request(node, address, run), "service": str(self._services / node.name)}
        answer = self._ask(request, node=node.name)
        return Started(node.name, run, answer["pid"], answer["started"])

    def request(self, node: NodePlan, address: str, run: str) -> dict[str, Any]:
        """What :func:`saf_env.runtimes.agent.start` is asked in order to start ``node``."""
        return {
            "op": "start",
            "argv": ray_start(node, address, run),
            "env": self._variables(node, run),
            "folder": str(self._folder),
            "temp_dir": str(node.temp_dir),
            "log": str(self.log(node.name)),
            "links": {
                str(environment_path(node)): str(node.environment.path),
                str(self._folder / "token"): str(self._token),
            },
        }

    def find(self, recorded: Sequence[Started] = ()) -> list[Found]:
        """See :meth:`saf_env.runtimes.base.Runtime.find`."""
        request = {"op": "find", "cluster": self._folder.name, "sessions": _sessions(recorded)}
        return found_nodes(self._ask(request)["processes"])

    def stop(
        self, names: Sequence[str], recorded: Sequence[Started] = (), *, head: bool = False
    ) -> list[str]:
        """See :meth:`saf_env.runtimes.base.Runtime.stop`."""
        request = {
            "op": "stop",
            "cluster": self._folder.name,
            "nodes": list(names),
            "sessions": _sessions(recorded),
            "grace": GRACE,
            "head": head,
            "services": str(self._services),
        }
        answer = self._ask(request)
        self.services.update(answer["services"])
        if answer["left"]:
            pids = ", ".join(str(p["pid"]) for p in answer["left"])
            raise BringUpError(
                f"{self._transport.host}: these processes could not be ended: {pids}",
                hint="end them by hand (they may be another user's), then run `saf-env down` again",
            )
        stopped: list[str] = answer["stopped"]
        return stopped

    def wait(
        self,
        started: Sequence[tuple[Started, NodePlan]],
        port: tuple[str, int] | None,
        seconds: float,
    ) -> Running:
        """Watch nodes until one dies, or until ``port`` answers; see :func:`waited`.

        Args:
            started: the nodes to watch.
            port: address and number, or None to watch for a death only.
            seconds: how long at most.
        """
        leaders = [
            {
                "node": s.node,
                "pid": s.pid,
                "started": s.started,
                "log": str(self.log(s.node)),
                "logs": str(_logs(node.temp_dir)),
            }
            for s, node in started
        ]
        request = {"op": "wait", "leaders": leaders, "port": port, "seconds": seconds}
        argv, stdin = script(self._python, _AGENT, request)
        return self._transport.start(argv, env=_PLAIN, stdin=stdin)

    def logs(
        self, nodes: Mapping[str, Path], offsets: Mapping[str, int], limit: int
    ) -> tuple[dict[str, str], dict[str, int]]:
        """New text by log file beyond ``offsets``, ``limit`` bytes each at most; new offsets.

        Args:
            nodes: Ray's folder of each node by name.
            offsets: bytes that were read so far by path.
            limit: bytes of one file that are read at once, the last ones.
        """
        request = {
            "op": "logs",
            "files": [str(path) for name in nodes for path in self._logs_of(name)],
            "folders": [str(_logs(temp_dir)) for temp_dir in nodes.values()],
            "offsets": dict(offsets),
            "limit": limit,
        }
        answer = self._ask(request)
        return answer["texts"], answer["offsets"]

    def names(self, lines: Sequence[str], *, look: bool = False) -> tuple[bool, str]:
        """Make ``lines`` the cluster's own in ``/etc/hosts``, others are left alone.

        Args:
            lines: from :func:`saf_env.plan.names.hosts_lines`; none removes them.
            look: see only whether they are there or can be written.

        Returns:
            Whether the file was changed; why it could not be, empty otherwise.
        """
        request = {
            "op": "names",
            "cluster": self._folder.name,
            "lines": list(lines),
            "look": look,
        }
        answer = self._ask(request)
        return answer["changed"], answer["refused"]

    def log(self, node: str) -> Path:
        """Where the output of the node's ``ray start`` goes, on the host."""
        return self._folder / f"{node}.log"

    def _logs_of(self, node: str) -> tuple[Path, Path]:
        return self.log(node), self._services / node / SERVICE_LOG

    def _variables(self, node: NodePlan, run: str) -> dict[str, str]:
        inherited = {k: v for k in _INHERITED if (v := self._environ.get(k)) is not None}
        path = f"{environment_path(node) / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        mark = f"{self._folder.name}/{node.name}/{run}"
        return {**inherited, "PATH": path, **node.variables, agent.MARK: mark}

    def _ask(self, request: Mapping[str, Any], node: str = "") -> dict[str, Any]:
        what = f"{self._transport.host}: cannot {_WORDS[request['op']]}"
        if self._here and request["op"] != "start":
            answer = agent.answer(request)
        else:
            argv, stdin = script(self._python, _AGENT, request)
            seconds = _SECONDS.get(request["op"], 60.0)
            result = self._transport.run(argv, env=_PLAIN, timeout=seconds, stdin=stdin)
            if not result.ok:
                raise BringUpError(
                    f"{what}: {result.tail(3)}",
                    hint="run the same command again; `saf-env check` looks at the machine",
                    node=node,
                )
            try:
                answer = json.loads(result.stdout)
            except ValueError:
                answer = {"error": f"{self._python} is no Python that answers"}
        if "error" in answer:
            raise BringUpError(
                f"{what}: {answer['error']}", hint="look at what is named above", node=node
            )
        return answer


def waited(answer: str) -> tuple[bool, list[Died]]:
    """Whether the port answered, and which nodes died; neither when it waited in vain.

    Args:
        answer: what the command of :meth:`NativeRuntime.wait` printed.
    """
    try:
        value = json.loads(answer)
    except ValueError:  # it was ended before it could answer
        return False, []
    return bool(value.get("open")), [Died(d["node"], d["tail"]) for d in value.get("dead", ())]


def found_nodes(processes: Sequence[Mapping[str, Any]]) -> list[Found]:
    """What the processes that the agent found are together, by node and start."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for process in processes:
        groups.setdefault((process["node"], process["run"]), []).append(process)
    return [_found(node, run, group) for (node, run), group in sorted(groups.items())]


def _found(node: str, run: str, group: Sequence[Mapping[str, Any]]) -> Found:
    roles: dict[str, int] = {}
    for process in group:
        roles[process["role"]] = roles.get(process["role"], 0) + 1
    leaders = [p for p in group if p["role"] == "leader"]
    leader = Started(node, run, leaders[0]["pid"], leaders[0]["started"]) if leaders else None
    return Found(node, run, roles, leader)


def _logs(temp_dir: Path) -> Path:
    return temp_dir / "session_latest" / "logs"


def _sessions(recorded: Sequence[Started]) -> list[tuple[int, str, str, str]]:
    return [(s.pid, s.node, s.run, s.started) for s in recorded]

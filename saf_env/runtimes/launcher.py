"""Keeps one native node running on its own host, started by the service manager there.

It is in the program that ``saf-env service install`` leaves in the service's folder, and runs with
nothing but a Python: ``python -I -S launcher.pyz service.json``. It starts the node as ``up`` does,
with the same command, variables and mark, so that ``status``, ``up`` and ``down`` find it; a node
that runs already it only watches. It ends with 1 when the node has died, which makes the manager
start it again; with 0 when it was told to end; with :data:`saf_env.runtimes.services.REFUSED` when
the node is not what was planned, which no other try would change.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import saf_env
from saf_env.errors import SafEnvError
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import ENVIRONMENT, judge, stopping
from saf_env.runtimes import agent
from saf_env.runtimes.base import Started, by_node
from saf_env.runtimes.native import GRACE, NativeRuntime
from saf_env.runtimes.services import REFUSED, Service, read
from saf_env.transports.local import LocalTransport

RELEASED = "released"
"""A file in the service's folder: the node is to outlive its service."""

GIVEN_UP = "given-up"
"""A file in the service's folder: its last launcher may not start the node."""

_LOOK_SECONDS = 2.0 if sys.platform == "linux" else 10.0  # elsewhere every look starts a process
_MOST_SECONDS = 15.0
_PROBE_SECONDS = 600.0

_FACTS = ("interpreter", "environment", "packages", "isolation", "files", "python_files")
_PROBE = "import sys; sys.path.insert(0, sys.argv.pop()); from saf_env.probe import main; main([])"

_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("saf-env")


class _EndedError(BaseException):
    """The manager wants this to end."""


def main() -> NoReturn:
    """Keep the node of the note that is the only argument."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        service = read(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("%s cannot be read: %s. Run `saf-env service install` again", sys.argv[1], error)
        sys.exit(_refused(Path(sys.argv[1]).parent))
    sys.exit(keep(service))


def keep(service: Service) -> int:
    """Start the node of ``service``, or find it running, and return once it has ended."""
    node = service.node
    try:
        for number in _ENDS:
            signal.signal(number, _end)
        _note_running(service.folder)
        native = _native(service)
        leader = _leader(native, node)
        if leader is None:
            _wait(f"this machine has no address {node.address}", lambda: _is_here(node.address))
            if reasons := drifted(service):
                log.error("%s is not started: it is not what the lock says", node.name)
                log.error("\n".join(reasons))
                return _refused(service.folder)
            leader = _start(service, native)
        else:
            log.info("%s runs; watching it", node.name)
        while agent.alive({"pid": leader.pid, "started": leader.started}):
            time.sleep(_LOOK_SECONDS)
    except _EndedError:
        if _is_released(service.folder):
            log.info("%s is left running, without a service", node.name)
            return 0
        log.info("stopping %s", node.name)
        _stop(service)
        return 0
    log.error("%s has ended: %s", node.name, _last_line(native.log(node.name)))
    _stop(service)
    return 1


def _is_released(folder: Path) -> bool:
    return (folder / RELEASED).exists() or not (folder / agent.SERVICE).exists()


def _end(*_: object) -> None:
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)  # once is enough
    raise _EndedError


def _refused(folder: Path) -> int:
    """The exit code of who gives up, which is written down for `saf-env service status`."""
    with contextlib.suppress(OSError):
        (folder / GIVEN_UP).touch()
    # launchd knows no code that it does not try again after, but 0.
    return 0 if sys.platform == "darwin" else REFUSED


def _native(service: Service) -> NativeRuntime:
    return NativeRuntime(
        LocalTransport(service.host),
        service.python,
        service.temp,
        service.token,
        here=True,
    )


def _note_running(folder: Path) -> None:
    """Write down who this is: `saf-env down` waits for its end."""
    own = next(p for p in agent.processes() if p["pid"] == os.getpid())
    text = json.dumps({"pid": own["pid"], "started": own["started"]})
    new = folder / f".{agent.RUNNING}"
    new.write_text(text, encoding="utf-8")
    new.replace(folder / agent.RUNNING)
    (folder / GIVEN_UP).unlink(missing_ok=True)  # which an earlier one may have done


def _leader(native: NativeRuntime, node: NodePlan) -> Started | None:
    """The process of the node to watch, if it runs."""
    found = by_node(native.find()).get(node.name)
    return found.leader if found else None


def _wait(lack: str, there: Callable[[], bool]) -> None:
    """Return once what lacks is ``there``; asked less and less often, for ever."""
    pause = 0.5
    while not there():
        if pause == 0.5:
            log.info("waiting: %s", lack)
        time.sleep(pause)
        pause = min(2 * pause, _MOST_SECONDS)


def _is_here(address: str) -> bool:
    """Whether ``address`` is this machine's (yet): a tailnet comes up some time after the boot."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(place)
    except OSError:
        return False
    return True


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def drifted(service: Service) -> list[str]:
    """How the node's environment differs from the plan, by the checks of the gate."""
    node = service.node
    try:
        facts = _facts(node.environment.python, service.host)
    except (SafEnvError, ValueError) as error:
        facts = {"facts": {}, "unknown": dict.fromkeys(_FACTS, str(error))}
    # All of the cluster that is known here, and more than these checks look at.
    cluster = ClusterPlan(
        name=service.cluster,
        home=service.token.parents[3],
        folder=service.temp,
        address=service.address,
        lock_sha256="",
        hosts={},
        nodes=(node,),
        interpreters={},
        driver=node.environment,
    )
    found = judge(cluster, node, {**facts, "user_variables": {}}, (), only=ENVIRONMENT)
    return [_told(finding) for finding in stopping(found)]


def _facts(python: Path, host: str) -> dict[str, Any]:
    """What the probe says under the node's own Python."""
    place = str(Path(saf_env.__file__).parents[1])
    done = LocalTransport(host).run(
        [str(python), "-I", "-S", "-c", _PROBE, place],
        env={"PATH": os.defpath},
        timeout=_PROBE_SECONDS,
        stdin=json.dumps({"only": _FACTS}),
    )
    if not done.ok:
        raise ValueError(f"{python} does not run: {done.tail(3)}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _told(finding: Finding) -> str:
    evidence = f": {finding.evidence}" if finding.evidence else ""
    remedy = f" (remedy: {finding.hint})" if finding.hint else ""
    return f"    {finding.id}: {finding.summary}{evidence}{remedy}"


def _start(service: Service, native: NativeRuntime) -> Started:
    """Start the node, a worker once its head answers, unless somebody has in the meantime."""
    node = service.node
    if node.role == "worker":
        place = _parts(service.address)
        _wait(f"no head answers at {service.address}", lambda: agent.answers(*place))
    if (leader := _leader(native, node)) is not None:
        return leader
    run = f"{service.digest}.{secrets.token_hex(4)}"
    log.info("starting %s (%s)", node.name, node.role)
    _stop(service)  # what is left of an earlier start
    answer = agent.start(native.request(node, service.address, run))
    return Started(node.name, run, answer["pid"], answer["started"])


def _stop(service: Service) -> None:
    """Stop what runs of the node; not by its runtime, which would first end this very service."""
    answer = agent.stop(
        {
            "cluster": service.temp.name,
            "nodes": [service.node.name],
            "sessions": [],
            "grace": GRACE,
            "head": service.node.role == "worker",
        }
    )
    for left in answer["left"]:
        log.error("cannot be ended: process %d, %s", left["pid"], left["command"])


def _last_line(path: Path) -> str:
    lines = [line for line in agent.tail(str(path)).splitlines() if line.strip()]
    return f"{lines[-1][:300] if lines else 'it said nothing'} ({path} has all of it)"

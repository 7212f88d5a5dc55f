"""Services that bring nodes back after a reboot, as text for the host's service manager. Pure.

In goes what a host has to know of one node (:class:`Service`), out come the unit of a systemd user
manager, the property list of a launchd agent, and the note that :mod:`saf_env.runtimes.launcher`
reads when the manager starts it.
"""

from __future__ import annotations

import json
import plistlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saf_env.errors import UsageError
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan, NodePlan, Ports
from saf_env.runtimes.agent import SERVICE
from saf_env.runtimes.native import SERVICE_LOG

SCHEMA = 1
PROGRAM = "launcher.pyz"
"""The launcher, in the service's folder."""

REFUSED = 78
"""Exit code of a launcher that may not start its node (EX_CONFIG of sysexits.h): never retried."""

STOP_SECONDS = 60
"""How long a manager waits for a launcher to stop its node before it kills it."""

_RETRY_SECONDS = 10
_TRIES, _WITHIN_SECONDS = 5, 600


@dataclass(frozen=True)
class Service:
    """What a host has to know in order to start one native node by itself; all paths absolute.

    Attributes:
        cluster: name of the cluster.
        host: name of the host.
        address: ``host:port`` of the GCS.
        digest: of the plan, as in the mark of a node that ``up`` starts.
        temp: the cluster's temp folder.
        token: the file with the cluster's token.
        folder: where this note, the launcher and its log are.
        python: what runs the launcher.
        node: what the node must be.
    """

    cluster: str
    host: str
    address: str
    digest: str
    temp: Path
    token: Path
    folder: Path
    python: Path
    node: NodePlan

    @property
    def command(self) -> tuple[str, ...]:
        """What the manager starts."""
        program, note = self.folder / PROGRAM, self.folder / SERVICE
        return (str(self.python), "-I", "-S", str(program), str(note))

    @property
    def log(self) -> Path:
        """Where the launcher says what it does."""
        return self.folder / SERVICE_LOG


_EXEC = 'exec "$0" "$@"'

# The note


def note(service: Service, stop: list[list[str]], start: list[list[str]]) -> str:
    """The text of a service's note.

    Args:
        service: what it is.
        stop: commands by which its manager ends it, and forgets that it failed.
        start: commands by which its manager starts it.
    """
    node = service.node
    # The text of the lock is long, and nothing here reads it.
    lock = replace(node.environment.lock, text="")
    node = replace(node, environment=replace(node.environment, lock=lock))
    value = {**asdict(replace(service, node=node)), "schema": SCHEMA, "stop": stop, "start": start}
    return json.dumps(value, default=str, indent=1, sort_keys=True)


def read(text: str) -> Service:
    """The service of a :func:`note`.

    Raises:
        ValueError: it is none, or another saf-env's.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError("not a note of this saf-env")
    paths = {name: Path(value[name]) for name in ("temp", "token", "folder", "python")}
    words: dict[str, Any] = {name: value[name] for name in ("cluster", "host", "address", "digest")}
    return Service(**{**words, **paths}, node=_node(value["node"]))


def _node(value: Mapping[str, Any]) -> NodePlan:
    env = value["environment"]
    lock = EnvironmentLock(**{**env["lock"], "groups": tuple(env["lock"]["groups"])})
    made = {"lock": lock, "interpreter": Interpreter(**env["interpreter"])}
    environment = EnvironmentPlan(**{**env, **made, "path": Path(env["path"])})
    return NodePlan(
        **{
            **value,
            "groups": tuple(value["groups"]),
            "ports": Ports(**value["ports"]),
            "environment": environment,
            "temp_dir": Path(value["temp_dir"]),
        }
    )


# systemd


def unit_name(cluster: str, node: str) -> str:
    """Name of the unit of a systemd user manager."""
    return f"saf-env-{cluster}-{node}.service"


def unit(service: Service) -> str:
    """The unit; see systemd.unit(5), systemd.service(5), systemd.exec(5).

    ``KillMode=process``: the launcher stops its node in the order that is quick and leaves nothing;
    and a launcher that dies takes no node with it, the next one watches it again.

    Raises:
        UsageError: a path cannot stand in a unit.
    """
    # The colon: no word is taken for a variable. And systemd starts nothing with a quote in its
    # path; the shell does.
    command = " ".join(map(_word, (":/bin/sh", "-c", _EXEC, *service.command)))
    return f"""\
[Unit]
Description=Ray node {service.node.name} of saf-env's cluster {service.cluster}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec={_WITHIN_SECONDS}
StartLimitBurst={_TRIES}

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec={_RETRY_SECONDS}
RestartPreventExitStatus={REFUSED}
KillMode=process
TimeoutStopSec={STOP_SECONDS}
StandardOutput=append:{_plain(str(service.log))}
StandardError=append:{_plain(str(service.log))}

[Install]
WantedBy=default.target
"""


def _word(text: str) -> str:
    """One word of a command line as systemd.syntax(7) and systemd.service(5) have it."""
    quoted = _plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _plain(text: str) -> str:
    """A value that is not taken apart; specifiers (%h) are replaced in it all the same."""
    if not text.isprintable():
        raise UsageError(
            f"{text!r} cannot stand in a systemd unit: it has a line break or another character "
            "that is not printed",
            hint="move the project to a folder with another name",
        )
    return text.replace("%", "%%")


# launchd


def label(cluster: str, node: str) -> str:
    """Label of the launchd agent; its file has the same name, with ``.plist``."""
    return f"dev.saf-env.{cluster}.{node}"


def agent(service: Service, home: Path) -> bytes:
    """The property list of the agent; see launchd.plist(5).

    Args:
        service: what it starts.
        home: the user's, where it runs.
    """
    return plistlib.dumps(
        {
            "Label": label(service.cluster, service.node.name),
            "ProgramArguments": list(service.command),
            "WorkingDirectory": str(home),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": _RETRY_SECONDS,
            "ExitTimeOut": STOP_SECONDS,
            "AbandonProcessGroup": True,  # as KillMode=process above
            "StandardOutPath": str(service.log),
            "StandardErrorPath": str(service.log),
        }
    )

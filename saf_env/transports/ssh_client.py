"""The user's own OpenSSH client, as we call it for one host."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from saf_env.errors import CommandTimeoutError, ToolchainError, UsageError
from saf_env.transports.base import CommandResult
from saf_env.transports.local import LocalTransport
from saf_env.transports.process import Piped, Sink
from saf_env.transports.ssh_failures import Target, unreachable
from saf_env.transports.ssh_script import COMMAND

FORCED = (
    "BatchMode=yes",  # nobody is asked anything
    # Only what the user has in known_hosts is trusted, whatever the configuration allows besides.
    "StrictHostKeyChecking=yes",
    "NoHostAuthenticationForLocalhost=no",
    "VerifyHostKeyDNS=no",
    "UpdateHostKeys=no",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",  # with the count: a link that stalls ends after 15 to 20 s
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",  # ends what outlives us
    "ClearAllForwardings=yes",
    "StreamLocalBindUnlink=yes",  # the socket of a connection that was lost is in nobody's way
    "Tunnel=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "VisualHostKey=no",
    "FingerprintHash=sha256",
)
"""Options of every call. ssh takes the first value that it is given: these before any file's."""

LATER = {"stdinnull": "no", "forkafterauthentication": "no", "sessiontype": "default"}
"""Options that break a call of ours, and that older clients (before 8.7) do not know."""

SOCKET_LIMIT = 103
"""Bytes of a socket's path on macOS (``sun_path`` less its zero byte); Linux has 107."""

SOCKET_NAME = 1 + 40 + 17
"""Bytes that ssh adds to the folder: a slash, ``%C`` (SHA-1 as hex), a suffix while it makes it."""

ASKING = 10.0
"""Seconds for a call of ssh, or of a tool beside it, that connects to nothing or asks one key."""


class SshClient:
    """Calls ssh for one host.

    Args:
        target: the host.
        folder: where the sockets of connections are; private (0700) and short.
        environ: the variables of ssh: HOME, PATH, SSH_AUTH_SOCK and what the user's configuration
            needs.

    Raises:
        UsageError: the folder is of no use for sockets, or the destination is none.
    """

    def __init__(self, target: Target, folder: Path, environ: Mapping[str, str]) -> None:
        _check_destination(target)
        self.target = target
        # Its messages are read, so they have to be in English.
        self._environ = {**environ, "LC_ALL": "C"}
        self._path = _control_path(folder)
        self._local = LocalTransport()
        self._asking = threading.Lock()
        self._settings: dict[str, str] | None = None

    def options(self, level: str = "ERROR") -> list[str]:
        """What every call has; ``level`` is how much ssh says."""
        forced = [f"-o{option}" for option in (*FORCED, f"LogLevel={level}", self._path)]
        return ["-T", "-a", "-x", *forced, *self.target.options]

    def settings(self) -> dict[str, str]:
        """What ssh makes of our options and the user's configuration, by option in small letters.

        Raises:
            HostUnreachableError: the configuration is refused.
            ToolchainError: there is no ssh on this machine.
        """
        with self._asking:
            if self._settings is None:
                done = self._run(["ssh", "-G", *self.options(), "--", self.target.destination])
                if not done.ok:
                    raise unreachable(self.target, done.stderr)
                pairs = (line.partition(" ") for line in done.stdout.splitlines())
                self._settings = {name.lower(): value for name, _, value in pairs}
            return self._settings

    def connected(self) -> bool:
        """Whether there is a connection to share, as far as its socket tells."""
        return os.path.exists(self.settings()["controlpath"])

    def open(self, feed: Iterable[bytes], out: Sink, err: Sink, *, level: str = "ERROR") -> Piped:
        """Call ssh for :data:`~saf_env.transports.ssh_script.COMMAND`; see :class:`Piped`."""
        known = self.settings()
        later = [f"-o{name}={value}" for name, value in LATER.items() if name in known]
        call = ["ssh", *self.options(level), *later, "--", self.target.destination, COMMAND]
        try:
            return Piped(call, self._environ, feed, out, err)
        except OSError as error:
            raise _no_client("ssh") from error

    def fingerprint(self, kind: str) -> str:
        """The fingerprint that the host shows now; empty where it cannot be asked (a jump host).

        Args:
            kind: the type of the key, as ssh names it in messages.
        """
        known = self.settings()
        if any(known.get(name, "none") != "none" for name in ("proxyjump", "proxycommand")):
            return ""
        kind = kind.lower().removesuffix("-cert")
        scan = ["ssh-keyscan", "-T", "5", "-p", known["port"], "-t", kind, "--", known["hostname"]]
        try:
            keys = self._run(scan).stdout
            shown = self._run(["ssh-keygen", "-l", "-f", "-"], stdin=keys).stdout if keys else ""
        except (CommandTimeoutError, ToolchainError):
            return ""
        return next((word for word in shown.split() if word.startswith("SHA256:")), "")

    def forward(self, here: Path, there: str) -> CommandResult:
        """Let the shared connection, which there must be, lead from ``here`` to ``there``.

        The user's configuration is left out: what it forwards is none of our business.
        """
        path = f"-oControlPath={self.settings()['controlpath'].replace('%', '%%')}"
        way = ["-L", f"{here}:{there}"]
        host = self.target.destination
        return self._run(["ssh", "-F", "none", "-O", "forward", path, *way, "--", host])

    def exit(self) -> None:
        """End the shared connection, and what still runs over it."""
        if self._settings is not None and self.connected():
            self._run(["ssh", "-O", "exit", *self.options(), "--", self.target.destination])

    def _run(self, argv: list[str], stdin: str = "") -> CommandResult:
        try:
            return self._local.run(argv, env=self._environ, timeout=ASKING, stdin=stdin)
        except ToolchainError as error:
            raise _no_client(argv[0]) from error


def _no_client(program: str) -> ToolchainError:
    return ToolchainError(
        f"this machine: there is no {program}, which hosts over SSH need",
        hint="install OpenSSH's client (Debian, Ubuntu: apt-get install openssh-client; a Mac has "
        "it), or put it on PATH",
    )


def _check_destination(target: Target) -> None:
    # ssh takes what begins with a dash for an option even where somebody else wrote it.
    if not re.fullmatch(r"[^-\s\0][^\s\0]*", target.destination):
        raise UsageError(
            f"{target.host}: {target.destination!r} is nothing that ssh can connect to",
            hint="give a name of your ssh configuration, or user@host",
        )


def _control_path(folder: Path) -> str:
    path = str(folder)
    if not folder.is_absolute() or any(sign in path for sign in '"\\$\n'):
        raise UsageError(
            f"ssh can keep no sockets in {path}", hint="it has to be a plain, absolute path"
        )
    length = len(os.fsencode(path))
    if length > SOCKET_LIMIT - SOCKET_NAME:
        raise UsageError(
            f"the path {path} is too long for ssh's sockets: {length} bytes of at most "
            f"{SOCKET_LIMIT - SOCKET_NAME}",
            hint="choose a folder nearer to the root",
        )
    # ssh takes quotes off, and expands what begins with a percent sign.
    escaped = path.replace("%", "%%")
    return f'ControlPath="{escaped}/%C"'

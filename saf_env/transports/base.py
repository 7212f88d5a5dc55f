"""What every transport gives: a command run on a host, and its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NETWORK_VARIABLES = (
    "HOME",
    "PATH",
    "LANG",
    "USER",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""Variables of the user that a program needs which goes through the user's network."""


@dataclass(frozen=True)
class CommandResult:
    """A finished command.

    Attributes:
        argv: the command as it was run, never with a secret in it.
        host: the host it ran on.
        code: its exit code; negative is minus the signal that ended it.
        stdout, stderr: all that it printed, as text (undecodable bytes replaced).
        seconds: wall time.
    """

    argv: tuple[str, ...]
    host: str
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0."""
        return self.code == 0

    def tail(self, lines: int = 15) -> str:
        """The last ``lines`` lines that the command printed, stderr first choice."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-lines:])


class Running(Protocol):
    """A command that runs while the caller does something else."""

    def poll(self) -> CommandResult | None:
        """Its result once it has finished, else None."""
        ...

    def printed(self) -> str:
        """What it has printed so far on standard output."""
        ...

    def stop(self) -> None:
        """End it and its group now; nothing when it has finished."""
        ...


class Transport(Protocol):
    """Runs commands on one host. The only way that saf-env starts processes."""

    host: str

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """Run ``argv`` with exactly the environment ``env`` and wait for it.

        Args:
            argv: the command; its first word is a path or a name on ``env["PATH"]``.
            env: the whole environment of the command; nothing is inherited.
            timeout: seconds after which the command and its group are killed.
            stdin: what the command reads.
            cwd: the folder it runs in.

        Raises:
            CommandTimeoutError: the command took longer than ``timeout``.
            HostUnreachableError: the host cannot be reached (never for the local one).
            ToolchainError: there is no such program on the host.
        """
        ...

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        cwd: str | None = None,
    ) -> CommandResult:
        """As :meth:`run`, with the command's output going straight to our own."""
        ...

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str = "") -> Running:
        """As :meth:`run`, without waiting: the caller polls it, and stops it at its end.

        Meant for commands that print little: what they print is kept in memory.
        """
        ...


class FileTransport(Transport, Protocol):
    """A transport to another host, whose files we cannot write ourselves."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str | Iterable[bytes] = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`Transport.run`; ``stdin`` as for :meth:`start`."""
        ...

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str | Iterable[bytes] = ""
    ) -> Running:
        """See :meth:`Transport.start`.

        Args:
            argv: the command.
            env: its whole environment.
            stdin: what the command reads. Parts are sent one by one, as they come, and the command
                reads the end after the last of them, or when we end.

        Raises:
            HostUnreachableError: the host cannot be reached.
        """
        ...

    def close(self) -> None:
        """End the connection; the next call opens a new one."""
        ...

    def forward(self, here: Path, there: str) -> None:
        """Make a socket of that host one of this machine, for as long as the connection lasts.

        Args:
            here: where it is to be: in a private folder, and at most 103 bytes long.
            there: its path on the host, absolute.

        Raises:
            BringUpError: the socket cannot be made here; what the host forbids, its user will see.
            HostUnreachableError: the host cannot be reached.
        """
        ...

    def put(self, source: Path | bytes, target: str, *, mode: int = 0o600, timeout: float) -> None:
        """Write a file there: whole, or not at all. A file that was there is replaced.

        Args:
            source: a file of this machine, or what is to be in it.
            target: its path there; a relative one begins at the user's home. Folders that lack are
                made, for their owner only (0700).
            mode: its permissions.
            timeout: seconds for all of it.

        Raises:
            BringUpError: it cannot be written there (permissions, a full disk) or read here.
            CommandTimeoutError: it took longer than ``timeout``.
            HostUnreachableError: the host cannot be reached, or the connection was lost.
        """
        ...

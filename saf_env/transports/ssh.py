"""A host over SSH, by the user's own OpenSSH client; of the host, only sshd and ``sh`` are needed.

All calls for a host share one connection, which the first of them opens. ``ssh_script`` is what is
sent, ``ssh_client`` how ssh is called, ``ssh_failures`` what its messages mean.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from saf_env.errors import (
    BringUpError,
    CommandTimeoutError,
    HostUnreachableError,
    NoProgramError,
    SafEnvError,
)
from saf_env.transports.base import CommandResult
from saf_env.transports.process import Sink, decode, is_listened_on
from saf_env.transports.source import parts, size_of
from saf_env.transports.ssh_client import SshClient
from saf_env.transports.ssh_failures import (
    Target,
    lost,
    no_shell,
    unknown_key,
    unknown_kind,
    unreachable,
)
from saf_env.transports.ssh_script import (
    Frame,
    Script,
    body_script,
    exit_code,
    kill_script,
    put_script,
    run_script,
)

SESSIONS = 8
"""Commands at once over one connection: sshd allows 10 (MaxSessions), and a kill must find room."""

CONNECTING = 30.0
"""Seconds for the first call: TCP and keys have 10 (ConnectTimeout), logging in has the rest."""

KILLING = 8.0
"""Seconds for the call that kills what runs too long: two of them let it end by itself."""


class SshTransport:
    """Runs commands on a host over SSH. Safe for several threads.

    A command's exit code of 129 to 159 is taken for its end by a signal: a shell cannot tell them
    apart. Of variables the command gets exactly ``env``, and those that ``sh`` itself sets (PWD,
    OLDPWD, SHLVL, _). Without ``cwd`` it runs in the user's home.

    Args:
        host: the host's name in the cluster file, for messages.
        destination: a name of the user's ssh configuration, or ``user@host``.
        folder: where the sockets of connections are; private (0700), at most 45 bytes long.
        environ: the variables of ssh itself: HOME, PATH, SSH_AUTH_SOCK and what the user's
            configuration needs.
        port: where it is not 22 and the user's configuration does not say so.
        config: a file that stands in for the user's configuration.

    Raises:
        UsageError: the folder is of no use for sockets, or the destination is none.
    """

    def __init__(
        self,
        host: str,
        destination: str,
        *,
        folder: Path,
        environ: Mapping[str, str],
        port: int | None = None,
        config: Path | None = None,
    ) -> None:
        self.host = host
        file = () if config is None else ("-F", str(config))
        place = () if port is None else ("-p", str(port))
        self._client = SshClient(Target(host, destination, (*file, *place)), folder, environ)
        self._slots = threading.BoundedSemaphore(SESSIONS)
        self._connecting = threading.Lock()
        self._refused: tuple[float, SafEnvError] | None = None

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str | Iterable[bytes] = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.FileTransport.run`. Connecting has its own limit."""
        script = run_script(argv, env, cwd)
        return self._execute(argv, script, _feed(stdin), timeout)

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.Transport.stream`."""
        script = run_script(argv, env, cwd)
        return self._execute(argv, script, [], timeout, sinks=(_writer(1), _writer(2)))

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str | Iterable[bytes] = ""
    ) -> SshCommand:
        """See :meth:`saf_env.transports.base.FileTransport.start`. ``poll`` tells what fails."""
        script = run_script(argv, env, None)
        self._connect()
        with contextlib.ExitStack() as room:
            # Never wait for room here: beyond it, ssh makes a connection of its own.
            if self._slots.acquire(blocking=False):
                room.callback(self._slots.release)
            command = self._open(argv, script, _feed(stdin))
            command.watch(room.pop_all().close)
        return command

    def put(self, source: Path | bytes, target: str, *, mode: int = 0o600, timeout: float) -> None:
        """See :meth:`saf_env.transports.base.FileTransport.put`."""
        script = put_script(target, size_of(source, self.host), mode)
        done = self._execute(["write", target], script, parts(source), timeout)
        if not done.ok:
            raise BringUpError(
                f"{self.host}: cannot write {target}: {done.tail(3)}",
                hint="free some space on that disk, or choose a folder that this user may write to",
            )

    def forward(self, here: Path, there: str) -> None:
        """See :meth:`saf_env.transports.base.FileTransport.forward`."""
        for _ in range(2):
            self._connect()
            with self._connecting:
                if is_listened_on(here):
                    return
                done = self._client.forward(here, there)
            if done.ok:
                return
            # One that is just ending forwards nothing; this opens another, or says why not.
            self.run(["sh", "-c", ":"], env={"PATH": "/usr/bin:/bin"}, timeout=CONNECTING)
        raise BringUpError(
            f"{self.host}: {there} cannot be forwarded to {here}: {done.tail(3)}",
            hint="see that this machine has room and the right to make a socket there",
        )

    def close(self) -> None:
        """End the connection, and what still runs over it. The next call opens a new one."""
        with contextlib.suppress(SafEnvError):
            self._client.exit()

    def _execute(
        self,
        argv: Sequence[str],
        script: Script,
        feed: Iterable[bytes],
        timeout: float,
        *,
        sinks: tuple[Sink, Sink] | None = None,
    ) -> CommandResult:
        self._connect()
        with self._slots:
            command = self._open(argv, script, feed, sinks=sinks)
            try:
                return command.wait(timeout)
            except subprocess.TimeoutExpired as error:
                command.kill(ask=True)
                raise CommandTimeoutError(
                    f"{self.host}: {argv[0]} did not finish within {timeout:.0f} s",
                    hint="the host may be overloaded or a download stalled; try again",
                ) from error
            except BaseException:
                command.kill(ask=True)
                raise

    def _connect(self) -> None:
        """Open the connection that all calls share, if there is none."""
        if self._client.connected():
            return
        asked = time.monotonic()
        with self._connecting:
            if self._refused and self._refused[0] > asked:
                raise self._refused[1]  # somebody else has just tried, while we waited
            if self._client.connected():
                return
            # INFO shows what the host says before it lets somebody in, as Tailscale does.
            command = self._open(["ssh"], body_script(":", ["x"]), [], level="INFO")
            try:
                command.wait(CONNECTING)
            except SafEnvError as error:
                self._refused = (time.monotonic(), error)
                raise
            except subprocess.TimeoutExpired as error:
                command.kill(ask=False)
                said = f"{command.said()}\ntimed out after {CONNECTING:.0f} s"
                refused = unreachable(self._client.target, said)
                self._refused = (time.monotonic(), refused)
                raise refused from error
            except BaseException:
                command.kill(ask=False)
                raise

    def _open(
        self,
        argv: Sequence[str],
        script: Script,
        feed: Iterable[bytes],
        *,
        sinks: tuple[Sink, Sink] | None = None,
        level: str = "ERROR",
    ) -> SshCommand:
        return SshCommand(self._client, argv, script, feed, sinks=sinks, level=level)


class SshCommand:
    """A command that runs on a host; see :class:`saf_env.transports.base.Running`."""

    def __init__(
        self,
        client: SshClient,
        argv: Sequence[str],
        script: Script,
        feed: Iterable[bytes],
        *,
        sinks: tuple[Sink, Sink] | None,
        level: str = "ERROR",
    ) -> None:
        self._client = client
        self._argv = tuple(argv)
        self._kept: tuple[list[bytes], list[bytes]] = ([], [])
        out, err = sinks or (self._kept[0].append, self._kept[1].append)
        self._out = Frame(script.nonce, out)
        self._err = Frame(script.nonce, err)
        self._started = time.monotonic()
        self._outcome: CommandResult | SafEnvError | None = None
        self._watcher: threading.Thread | None = None
        self._stopped = False
        feed = itertools.chain([script.line], feed)
        self._piped = client.open(feed, self._out.take, self._err.take, level=level)

    def wait(self, timeout: float | None) -> CommandResult:
        """Wait for its end, ``timeout`` seconds at most.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then, and still runs.
            HostUnreachableError: there was no connection, or it was lost.
            ToolchainError: there is no such program, or no such folder, on the host.
        """
        code = self._piped.wait(timeout, rest=lambda: self._err.end is not None)
        self._out.close()
        self._err.close()
        if code == 0 and self._err.end is not None:
            return self._finished(self._err.end)
        raise self._failure(code)

    def watch(self, ended: Callable[[], None]) -> None:
        """Wait for its end in a thread, and call ``ended`` then."""
        self._watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        self._watcher.start()

    def poll(self) -> CommandResult | None:
        """See :meth:`saf_env.transports.base.Running.poll`.

        Raises:
            HostUnreachableError: there was no connection, or it was lost.
            ToolchainError: there is no such program on the host.
        """
        if isinstance(self._outcome, SafEnvError):
            raise self._outcome
        return self._outcome

    def printed(self) -> str:
        """See :meth:`saf_env.transports.base.Running.printed`."""
        return decode(b"".join(self._kept[0]))

    def stop(self) -> None:
        """See :meth:`saf_env.transports.base.Running.stop`."""
        if self._outcome is None:
            self._stopped = True
            self.kill(ask=False)
            if self._watcher is not None:
                self._watcher.join(timeout=2.0)

    def kill(self, *, ask: bool) -> None:
        """End its group on the host by a second call, then the call here; returns within 12 s.

        ``ask`` gives it two seconds to end by itself. Where there is no connection any more, what
        runs on the host is out of reach.
        """
        group = self._out.group or self._err.group
        if group is not None and self._err.end is None:
            killer = None
            with contextlib.suppress(SafEnvError, subprocess.TimeoutExpired):
                script = kill_script(group, ask=ask)
                killer = SshCommand(self._client, ["kill"], script, [], sinks=None)
                killer.wait(KILLING)
            if killer is not None:
                killer._piped.end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._piped.wait(1.0)
        self._piped.end()

    def said(self) -> str:
        """What was printed instead of the command's own output."""
        return decode(b"\n".join((self._err.before, self._out.before))).strip()

    def _watch(self, ended: Callable[[], None]) -> None:
        try:
            self._outcome = self.wait(None)
        except SafEnvError as error:
            # Who stopped it knows why it ended; the shell that would tell was killed with it.
            self._outcome = self._result(-9) if self._stopped else error
        finally:
            ended()

    def _finished(self, end: str) -> CommandResult:
        host, program = self._client.target.host, self._argv[0]
        if end in ("program", "folder"):
            lacking = "No such program" if end == "program" else "No such folder to run it in"
            raise NoProgramError(
                f"{host}: cannot run {program}: {lacking}",
                hint="`saf-env check` shows what is missing on that host",
            )
        return self._result(exit_code(end))

    def _result(self, code: int) -> CommandResult:
        return CommandResult(
            argv=self._argv,
            host=self._client.target.host,
            code=code,
            stdout=self.printed(),
            stderr=decode(b"".join(self._kept[1])),
            seconds=time.monotonic() - self._started,
        )

    def _failure(self, code: int) -> HostUnreachableError:
        target = self._client.target
        if self._out.group is not None or self._err.group is not None:
            return lost(target, self._argv[0], decode(self._err.tail))
        said = self.said()
        # 255 is ssh's own; any other code was handed on from what the host ran instead of us.
        if code != 255:
            return no_shell(target, said)
        kind = unknown_kind(said)
        if kind is not None:
            return unknown_key(target, kind, self._client.fingerprint(kind))
        return unreachable(target, said)


def _feed(stdin: str | Iterable[bytes]) -> Iterable[bytes]:
    return [stdin.encode("utf-8", "replace")] if isinstance(stdin, str) else stdin


def _writer(stream: int) -> Sink:
    """Writes to a stream of our own, until nobody reads it any more."""

    def write(data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(stream, data) :]

    return write

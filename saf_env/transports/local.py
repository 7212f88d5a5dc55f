"""This machine: commands are child processes, each in its own group, which a time-out ends."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from saf_env.errors import CommandTimeoutError, ToolchainError
from saf_env.transports.base import CommandResult
from saf_env.transports.process import Piped, decode, end_group, spawn


class LocalTransport:
    """Runs commands here.

    Args:
        host: the host's name in the cluster file, for messages.
    """

    def __init__(self, host: str = "this machine") -> None:
        self.host = host

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.Transport.run`."""
        return self._execute(argv, env, timeout, cwd, stdin=stdin, capture=True)

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.Transport.stream`."""
        return self._execute(argv, env, timeout, cwd, stdin="", capture=False)

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str = ""
    ) -> LocalCommand:
        """See :meth:`saf_env.transports.base.Transport.start`."""
        try:
            return LocalCommand(self.host, argv, env, stdin)
        except OSError as error:
            raise self._no_program(argv, error) from error

    def _execute(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout: float,
        cwd: str | None,
        *,
        stdin: str,
        capture: bool,
    ) -> CommandResult:
        started = time.monotonic()
        process = self._popen(argv, env, cwd, piped=capture)
        try:
            feed = stdin.encode("utf-8", "replace") if capture else None
            stdout, stderr = process.communicate(feed, timeout=timeout)
        except BaseException as error:
            end_group(process, process.communicate)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandTimeoutError(
                    f"{self.host}: {argv[0]} did not finish within {timeout:.0f} s",
                    hint="the machine may be overloaded or a download stalled; try again",
                ) from error
            raise
        return CommandResult(
            argv=tuple(argv),
            host=self.host,
            code=process.returncode,
            stdout=decode(stdout or b""),
            stderr=decode(stderr or b""),
            seconds=time.monotonic() - started,
        )

    def _popen(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, *, piped: bool
    ) -> subprocess.Popen[bytes]:
        try:
            return spawn(argv, env, cwd, piped=piped)
        except OSError as error:
            raise self._no_program(argv, error) from error

    def _no_program(self, argv: Sequence[str], error: OSError) -> ToolchainError:
        return ToolchainError(
            f"{self.host}: cannot run {argv[0]}: {error.strerror}",
            hint="`saf-env check` shows what is missing on that host",
        )


class LocalCommand:
    """A command that runs on this machine; see :class:`saf_env.transports.base.Running`.

    Threads read what it prints, so that a full pipe never stops it.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, host: str, argv: Sequence[str], env: Mapping[str, str], stdin: str) -> None:
        self._host = host
        self._argv = tuple(argv)
        self._kept: tuple[list[bytes], list[bytes]] = ([], [])
        self._result: CommandResult | None = None
        self._started = time.monotonic()
        feed = [stdin.encode("utf-8", "replace")]
        self._piped = Piped(argv, env, feed, self._kept[0].append, self._kept[1].append)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        code = self._piped.wait(None)
        self._result = CommandResult(
            argv=self._argv,
            host=self._host,
            code=code,
            stdout=self.printed(),
            stderr=decode(b"".join(self._kept[1])),
            seconds=time.monotonic() - self._started,
        )

    def poll(self) -> CommandResult | None:
        """See :meth:`saf_env.transports.base.Running.poll`."""
        return self._result

    def printed(self) -> str:
        """See :meth:`saf_env.transports.base.Running.printed`."""
        return decode(b"".join(self._kept[0]))

    def stop(self) -> None:
        """See :meth:`saf_env.transports.base.Running.stop`."""
        if self._result is None:
            self._piped.kill()
            self._watcher.join(timeout=2.0)

"""Child processes of ours: started, fed, read and ended here, for all transports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Sink = Callable[[bytes], None]
"""Takes a part of what a process prints; called from a thread."""

PART = 1 << 16
"""Bytes that are read at once: what a pipe holds on Linux."""


def spawn(
    argv: Sequence[str], env: Mapping[str, str], cwd: str | None = None, *, piped: bool
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a group and session of its own, with exactly the environment ``env``.

    ``piped`` gives it pipes; without, it reads nothing and prints where we do.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else None,
        stderr=subprocess.PIPE if piped else None,
        start_new_session=True,
    )


def end_group(process: subprocess.Popen[bytes], wait: Callable[..., object]) -> None:
    """Ask the group of ``process`` to end, then make it: interrupt, then kill after two seconds.

    Args:
        process: its leader.
        wait: waits for it, ``timeout`` seconds at most, as :meth:`subprocess.Popen.wait` does.
    """
    for sign, grace in ((signal.SIGINT, 2.0), (signal.SIGKILL, 2.0)):
        signal_group(process, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            wait(timeout=grace)
            return


def signal_group(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    """Send a signal to the group of ``process``, if there is one yet."""
    # macOS forbids to signal a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, sign)


def decode(data: bytes) -> str:
    """What a command printed, as text: undecodable bytes replaced, lines end in a newline only."""
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def is_listened_on(path: Path) -> bool:
    """Whether somebody accepts connections at a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(5.0)
        return trial.connect_ex(str(path)) == 0


class Piped:
    """A process whose streams are carried by threads: no full pipe ever stops it, or us.

    Args:
        argv, env: see :func:`spawn`.
        feed: what it reads, part by part; taken while it reads.
        out, err: take what it prints, see :data:`Sink`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        feed: Iterable[bytes],
        out: Sink,
        err: Sink,
    ) -> None:
        self._process = spawn(argv, env, piped=True)
        self._out = _carry(_drain, self._process.stdout, out)
        self._err = _carry(_drain, self._process.stderr, err)
        self._in = _carry(_pour, self._process.stdin, feed)

    def wait(self, timeout: float | None, *, rest: Callable[[], bool] = lambda: False) -> int:
        """Wait until it has ended and all that it printed is read; its code as Popen has it.

        Args:
            timeout: seconds; None waits without end.
            rest: true once what stderr still brings does not matter. Children may outlive the
                process with its stderr open, and keep it from being at its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # Its output ends when it does, as a rule, and a join wakes up at once; wait() polls.
        self._out.join(timeout)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        code = self._process.wait(left)
        last = time.monotonic() + 1.0
        while self._err.is_alive() and not rest() and time.monotonic() < last:
            self._err.join(0.01)
        self._in.join(1.0)
        return code

    def end(self) -> None:
        """End it and its group; nothing when it has ended."""
        if self._process.poll() is None:
            end_group(self._process, self._process.wait)

    def kill(self) -> None:
        """End its group at once; not to be called when :meth:`wait` has come to its end."""
        signal_group(self._process, signal.SIGKILL)


def _carry(work: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _drain(stream: IO[bytes], sink: Sink) -> None:
    with stream:
        while part := os.read(stream.fileno(), PART):
            sink(part)


def _pour(stream: IO[bytes], feed: Iterable[bytes]) -> None:
    # A process that does not read to the end is no failure of ours: what it says counts.
    with contextlib.suppress(BrokenPipeError), stream:
        for part in feed:
            stream.write(part)
            stream.flush()  # the next part may be long in coming

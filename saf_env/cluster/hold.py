"""One saf-env at a time changes a cluster, from whichever machine or project folder it is called.

It holds a lock on the host of the head, then on every other host where it starts or stops nodes:
the file ``hold`` in the cluster's temp folder, whose name is the same for all who mean this
cluster. So of two that begin at once the head's host lets one in, and the other is told who that
is. A cluster of this machine alone is its project folder's, where the lock is
:func:`saf_env.cluster.state.held`.

The lock is the kernel's (``flock``), which frees it when its holder ends, however it ends. On this
machine that is this process. On another host it is a ``sh``, since a bare host has no Python: who
has the file open holds the lock, whichever program has asked for it. That is ``flock`` on Linux;
macOS has none, so there it is the Python that saf-env has brought, or before that macOS's Perl. (A
folder as a lock would need no such program; but whoever finds one that was left behind would have
to judge whether its maker lives, and two may come to the same answer at once.)

The shell ends with its standard input, so with the command here, or with the connection. Where
neither is seen to end, of a machine that has lost its power or its cable, it gives up once it was
told nothing for :data:`SILENCE`; a machine that sleeps for longer than that loses the lock too.
So a holder is asked before any node is started or stopped: it says again what it is told. Who has
lost the lock of the head's host changes nothing more anywhere; that of another host, nothing there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TextIO, cast

from saf_env.cluster.claims import NOTE, OURS, belongs_to_another, claim_here, origin, who
from saf_env.cluster.hosts import Host, Hosts
from saf_env.errors import BringUpError, BusyError, SafEnvError, UsageError
from saf_env.errors import HostUnreachableError as Unreachable
from saf_env.runtimes.agent import private_folder
from saf_env.transports.base import FileTransport, Running

SILENCE = 60.0
"""Seconds after which a holder that was told nothing gives up."""

BEAT = 20.0
"""Seconds between two lines to a holder."""

_ANSWER = 30.0  # seconds for an answer of a holder
_FREE = 2.0  # seconds for a holder to end; it does at once where the connection is any good

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

Words = SimpleQueue[bytes]
"""What a holder is told."""

# Nothing but the shell may keep descriptor 9: the lock is free when it is closed everywhere. What
# watches it sleeps a second at a time: a longer sleep would be left behind when the watch is ended.
# The file is removed when the lock is given back, so it has to be seen that it is still the same.
HOLDER = (
    r"""
folder=$1 line=$2 silence=$3 python=$4 claim=$5 id=$6 origin=$7
file=$folder/hold
umask 077
flock='import fcntl, sys
try: fcntl.flock(9, 6)
except BlockingIOError: sys.exit(1)
except BaseException: sys.exit(2)'
lock() {
    if command -v flock; then flock -n 9; return; fi
    # A Python that is damaged is there to be mended.
    if [ -x "$python" ]; then
        "$python" -I -S -c "$flock"; code=$?
        [ $code -gt 1 ] || return $code
    fi
    perl -e 'open(F, ">&=9") && flock(F, 6) or exit 1'
} >/dev/null 2>&1
"""
    + OURS
    + r"""
claimed() {
    [ -n "$claim" ] || return 0
    mkdir -p -- "${claim%/*}"
    (set -C; printf '%s\n' "$id $origin" >"$claim")
    note=$(cat "$claim")
    ours || return 1
    case $note in "$id "*) ;; *) printf '%s\n' "$id $origin" >"$claim" ;; esac
    return 0
} 2>/dev/null
leave() {
    if [ "$(tail -n 1 "$file")" = "$own" ]; then rm -f "$file"; rmdir "$folder"; fi
    exit
}
keep() {
    if ! claimed; then echo "taken $note"; leave; fi
    echo held
    while
        (
            while kill -0 $$ && [ $silence -gt 0 ]; do sleep 1; silence=$((silence - 1)); done
            kill $$
        ) 9>&- </dev/null >/dev/null &
        watch=$!
        read -r beat
    do kill $watch; wait $watch; [ -z "$beat" ] || echo "$beat"; done
    kill $watch; wait $watch
    leave
} 2>/dev/null
for try in 1 2 3; do
    mkdir -m 700 "$folder" 2>/dev/null
    if [ ! -d "$folder" ] || [ -L "$folder" ] || [ ! -O "$folder" ]; then
        echo "unable $folder is not a folder of this user, and cannot be made one"; exit
    fi
    {
        lock
        case $? in
            0) ;;
            1) echo "busy $(date +%s) $(tail -n 1 "$file")"; exit ;;
            *) echo "unable there is no program for it (flock of util-linux, or perl)"; exit ;;
        esac
        own="$(date +%s) $$ $line"
        if printf '%s\n' "$own" >&9 && [ "$(tail -n 1 "$file")" != "$own" ]; then continue; fi
        keep
    } 9>>"$file"
done
echo "unable $file cannot be written"
"""
)
"""The shell that holds the lock of a host; its first line tells how that went.

``held``, and then each word that it is told; ``busy``, the time there, and what the lock's holder
has written down; ``taken`` and the note of the folder, see :mod:`saf_env.cluster.claims`; or
``unable`` and why.
"""


@dataclass(frozen=True)
class Work:
    """What is done to a cluster.

    Attributes:
        cluster: its name.
        command: of saf-env, without its options but those that count.
        project: the folder of the cluster's state on this machine.
        run: a word that no other call has.
    """

    cluster: str
    command: str
    project: Path
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def makes(self) -> bool:
        """Whether it puts something on hosts; what only looks or stops needs no folder there."""
        return self.command not in ("check", "down", "service remove")

    @property
    def origin(self) -> str:
        """Who we are to a host, see :mod:`saf_env.cluster.claims`."""
        return origin(self.project)

    @property
    def line(self) -> str:
        """What the lock tells others, after the time and the holder's process."""
        return f"{self.run} {who()} {self.command}"


@contextlib.contextmanager
def hold(hosts: Hosts, work: Work, names: Collection[str]) -> Iterator[dict[str, Unreachable]]:
    """Be the only saf-env that works on a cluster; gives the hosts that cannot be reached, and why.

    ``hosts`` start and stop nothing from when a lock is lost, as if its host were out of reach.
    Nothing but their answers is waited for: who comes second is told at once. Hosts that are not
    for this machine to ask are left out: a node that joins from its own host is held there.

    Args:
        hosts: the cluster's.
        work: what is about to be done.
        names: the hosts where it is done; the head's is added.

    Raises:
        BringUpError: a host cannot hold a lock; or what saf-env has there is another cluster's.
        BusyError: another saf-env holds the cluster; the message says who, where and since when.
    """
    if all(hosts[name].plan.here for name in hosts.names):
        yield {}
        return
    holder = _Holder(work, hosts.folder, shared=bool(hosts.unasked))
    others = sorted({*names} - {hosts.head})
    # Without a head that is known, the first in order is where two meet.
    first = [hosts.head] if hosts.head in hosts.names else others[:1]
    try:
        _, lost = hosts.ask(first, holder.take)
        _, missed = hosts.ask([name for name in others if name not in first], holder.take)
        hosts.held.update({name: partial(holder.ask, [*first, name]) for name in hosts.names})
        yield lost | missed
    finally:
        hosts.held.clear()
        holder.free()


class _Holder:
    """Takes the locks of hosts, from several threads, and gives all of them back at once."""

    def __init__(self, work: Work, folder: Path, *, shared: bool) -> None:
        self._shared = shared  # who runs the cluster has its things in our folder here
        self._work = work
        self._folder = folder
        self._there: dict[str, tuple[Running, Words]] = {}
        self._lost: dict[str, Unreachable] = {}
        self._here = contextlib.ExitStack()

    def take(self, host: Host) -> None:
        """Take the lock of one host; see :func:`hold`."""
        if host.plan.here:
            self._here.enter_context(held_here(self._folder, self._work, host.plan.name))
            if self._shared and self._work.makes:
                claim_here(host.plan, self._folder.name, self._work.origin)
            return
        way = cast(FileTransport, host.transport)
        argv = ["sh", "-c", HOLDER, "sh", *self._words(host)]
        words: Words = SimpleQueue()
        running = way.start(argv, env=_PATH, stdin=beats(words))
        self._there[host.plan.name] = running, words
        try:
            said = _said(running, host.plan.name, "\n").partition("\n")[0]
        except Unreachable:
            way.close()  # whoever asks it next gets a new connection, or none
            self._forget(host.plan.name)
            raise
        if not self._is_held(host, said):
            self._forget(host.plan.name)

    def _forget(self, name: str) -> None:
        """Ask no more after a lock that was never held."""
        self._there.pop(name)[1].put(b"")

    def ask(self, names: Sequence[str]) -> None:
        """Raise HostUnreachableError when one of the locks that were taken of ``names`` is lost."""
        for name in dict.fromkeys(names):
            if name in self._there and name not in self._lost and (why := self._silence(name)):
                again = "" if self._work.command == "down" else ", and run the same command again"
                self._lost[name] = Unreachable(
                    f"{name}: the lock of cluster {self._work.cluster} is lost there, and another "
                    f"saf-env may be at work: {why}",
                    hint=f"see that this machine stays awake and reaches {name}{again}",
                )
            if name in self._lost:
                raise self._lost[name]

    def _silence(self, name: str) -> str:
        """Why the holder on a host does not answer; empty when it does."""
        running, words = self._there[name]
        word = secrets.token_hex(4)
        words.put(f"{word}\n".encode())
        try:
            if word in _said(running, name, word):
                return ""
        except SafEnvError as error:
            return error.message
        return f"what held it has ended, as it does when it hears nothing for {SILENCE:.0f} s"

    def free(self) -> None:
        """Give the locks back, and see that the holders end: the next command may come at once."""
        for _, words in self._there.values():
            words.put(b"")
        self._here.close()
        deadline = time.monotonic() + _FREE
        for running, _ in self._there.values():
            with contextlib.suppress(SafEnvError):  # a connection that is lost frees it as well
                while running.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.002)

    def _words(self, host: Host) -> list[str]:
        claim = str(host.plan.home / NOTE) if self._work.makes else ""
        place = [str(self._folder), self._work.line, f"{SILENCE:.0f}", str(host.python)]
        return [*place, claim, self._folder.name, self._work.origin]

    def _is_held(self, host: Host, said: str) -> bool:
        """Whether what a holder has said is that it holds the lock, where that is not an error."""
        word, _, rest = said.partition(" ")
        name = host.plan.name
        if word == "busy":
            now, _, line = rest.partition(" ")
            if self._work.run in line.split(" "):
                return False  # two hosts of the cluster file are one machine
            raise busy(self._work.cluster, name, line, now)
        if word == "taken":
            raise belongs_to_another(host.plan, rest)
        # What is to be stopped is stopped all the same, and what is asked for is looked at.
        if word != "held" and self._work.makes:
            raise BringUpError(
                f"{name}: it cannot be seen whether another saf-env works on cluster "
                f"{self._work.cluster} there: {rest or said or 'no answer'}",
                hint="mend what is named above, then run the same command again",
            )
        return word == "held"


def beats(words: Words, every: float = BEAT) -> Iterator[bytes]:
    """What a holder hears: ``words`` as they come, until an empty one, and a line now and then."""
    word = b"\n"
    while word:
        try:
            word = words.get(timeout=every)
        except Empty:
            word = b"\n"
        if word:
            yield word


def busy(cluster: str, host: str, line: str, now: str) -> BusyError:
    """The error of who comes second.

    Args:
        cluster: its name.
        host: where that is.
        line: what the holder has written down: since when, its process and call, who, what it does.
        now: the time on the host, in seconds since 1970 as ``line`` has it.
    """
    try:
        since, _, _, by, command = line.split(" ", 4)
        seconds = max(0, int(now) - int(since))
        ago = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
        holder = f"({command}, started {ago} ago by {by}) "
    except ValueError:  # it has just begun, and not said who it is
        holder = ""
    return BusyError(
        f"another saf-env {holder}is working on cluster {cluster} on {host or 'this machine'}",
        hint="wait until it has finished, or interrupt it, then try again",
    )


@contextlib.contextmanager
def held_here(folder: Path, work: Work, host: str) -> Iterator[None]:
    """Hold the lock of this machine, as :data:`HOLDER` does on others.

    Args:
        folder: the cluster's temp folder.
        work: what is about to be done.
        host: name of this machine.

    Raises:
        BusyError: another saf-env holds it.
        UsageError: the folder cannot be made, or is not this user's.
    """
    path = folder / "hold"
    with _locked(path, work.cluster, host) as file:
        file.write(f"{time.time():.0f} {os.getpid()} {work.line}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # others have put something in, or removed it
                path.unlink()
                folder.rmdir()


def _locked(path: Path, cluster: str, host: str) -> TextIO:
    try:
        while True:
            private_folder(str(path.parent))
            file = path.open("a+", encoding="utf-8", errors="replace")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with file:
                    file.seek(0)
                    line = (file.read().splitlines() or [""])[-1]
                raise busy(cluster, host, line, f"{time.time():.0f}") from None
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()  # who gives it back removes it: this one was just going
    except OSError as error:
        raise UsageError(
            f"cannot lock {path}: {error.strerror or error}",
            hint="it keeps two saf-env from one cluster; its folder is for you only",
        ) from error


def _said(running: Running, host: str, word: str) -> str:
    """What a holder has said once ``word`` is in it, or it has ended.

    Raises:
        HostUnreachableError: the connection was lost; or ``word`` was not said for too long.
    """
    deadline = time.monotonic() + _ANSWER
    while word not in (said := running.printed()):
        if running.poll() is not None:
            return running.printed().strip()
        if time.monotonic() > deadline:
            running.stop()
            raise Unreachable(
                f"{host}: it says nothing: its lock was not answered for within {_ANSWER:.0f} s",
                hint="it may be overloaded, asleep or cut off; try again",
            )
        time.sleep(0.002)
    return said

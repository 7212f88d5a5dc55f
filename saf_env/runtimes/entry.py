"""The first process of a container node: ``ray start``, and an end that Ray is told of.

Run inside the container, standard library only. Without it a stopped container would take its
raylet along without a word, and the head would count the node as alive for seconds.

``entry.py [--wait NAME PORT] -- COMMAND…`` runs the command, with ``--wait`` only once that port
answers; SIGTERM ends the raylet first, which drains, and then the rest. ``entry.py --healthy`` says
by its exit code whether the node's raylet answers.

An engine that starts a container again hands it the same ``/ray``: what earlier sessions left there
belongs to nobody any more, but for the last one's logs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

OPEN_FILES = 65_536  # what Ray recommends for a node with many workers
SESSIONS = "/ray"  # Ray's temp dir, see saf_env.plan.build.CONTAINER_TEMP
DRAIN_SECONDS = 6.0  # a raylet ends its workers in 0.1; the engine kills after 10


class Stopped(Exception):
    """SIGTERM has come."""


def main() -> int:
    """Do what the command line says."""
    arguments = sys.argv[1:]
    if arguments == ["--healthy"]:
        return 0 if answers("127.0.0.1", int(os.environ["SAF_ENV_PORT"])) else 1
    signal.signal(signal.SIGTERM, stop)
    allow_open_files()
    split = arguments.index("--")
    waiting, command = arguments[:split], arguments[split + 1 :]
    child = None
    try:
        if waiting:
            wait(waiting[1], int(waiting[2]))
        clear(SESSIONS)
        child = subprocess.Popen(command)
        return child.wait()
    except Stopped:
        if child is not None:
            drain(child)
        return 0


def allow_open_files() -> None:
    """Raise the limit of open files as far as the engine allows, to what Ray wants at most."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def clear(folder: str) -> None:
    """Remove what earlier sessions left, spilled objects above all; the logs of the last stay."""
    with os.scandir(folder) as entries:
        found = [e for e in entries if e.name.startswith("session_") and _is_folder(e)]
    sessions = sorted(entry.path for entry in found)  # Ray names them by the time of their start
    for session in sessions[:-1]:
        remove(session)
    for session in sessions[-1:]:
        for name in {*os.listdir(session)} - {"logs"}:
            remove(os.path.join(session, name))


def remove(path: str) -> None:
    """Remove a file, a socket, a link or a folder, as far as that can be done: the node starts."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def stop(_number: int, _frame: object) -> None:
    """Leave whatever is waited for."""
    raise Stopped


def wait(name: str, port: int) -> None:
    """Until the port answers; for ever, since only the operator knows whether a head will come."""
    while not answers(name, port):
        time.sleep(0.05)


def answers(name: str, port: int) -> bool:
    """Whether somebody listens."""
    try:
        with socket.create_connection((name, port), timeout=2.0):
            return True
    except OSError:
        return False


def drain(leader: subprocess.Popen[bytes]) -> None:
    """End the raylet, and give it time to sign off; the container's end takes all the others."""
    raylets = [pid for pid in children(leader.pid) if name_of(pid) == "raylet"]
    for pid in raylets:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_SECONDS
    while any(name_of(pid) for pid in raylets) and time.monotonic() < deadline:
        time.sleep(0.02)
    leader.kill()
    leader.wait()


def children(parent: int) -> list[int]:
    """The processes that ``parent`` has started and that are still there."""
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def name_of(pid: int) -> str:
    """The name of a living process; empty for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return ""
    return "" if rest.split()[0] == "Z" else name


if __name__ == "__main__":
    sys.exit(main())

"""Starts, finds and stops the processes of native nodes. One file, standard library only.

It runs on the node's own host under any CPython from 3.9 on, over any transport: a JSON request
on standard input, a JSON answer on standard output. So nothing of saf-env has to be installed on a
host, and the same code acts on this machine and on another one.

How our processes are known: every node is started in a session of its own (``setsid``), with the
variable ``SAF_ENV_NODE=<cluster id>/<node>/<run>``. A process is a node's when it carries the
variable, or when it is in the session of one that does. Both are needed: Ray's workers overwrite
their environment block when they set their title, and a task may start a session of its own.

Paths in a node's command line must not have blanks: Ray starts its workers through ``bash -c`` and
``LD_PRELOAD`` without quoting. So every node runs its environment through a link in the cluster's
temp folder, whatever the path of the project is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if (
    TYPE_CHECKING
):  # this and other slow modules are imported where they are needed: it has to be quick
    from collections.abc import Iterable, Iterator
    from typing import Any

MARK = "SAF_ENV_NODE"
TAIL_BYTES = 20_000
OPEN_FILES = 65_536  # what Ray recommends for a node with many workers
_LINUX = sys.platform.startswith("linux")


def processes() -> list[dict[str, Any]]:
    """Every process of the machine that may be looked at.

    Returns:
        A list of dicts: ``pid``, ``session``, ``started`` (text that changes when a pid is used
        again), ``command`` and ``mark`` (empty without one).
    """
    listing = _linux_processes if _LINUX else _macos_processes
    found = []
    for process in listing():
        try:
            process["session"] = os.getsid(process["pid"])
        except (ProcessLookupError, PermissionError):
            continue
        found.append(process)
    return found


def _linux_processes() -> Iterator[dict[str, Any]]:
    marker = MARK.encode() + b"="
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        folder = f"/proc/{name}/"
        try:
            fields = _read(folder + "stat").rsplit(b")", 1)[1].split()
            if fields[0] in (b"Z", b"X"):
                continue
            command = _read(folder + "cmdline").replace(b"\0", b" ").decode(errors="replace")
            environ = _read(folder + "environ").split(b"\0")
        except (OSError, IndexError):
            continue
        mark = next((e[len(marker) :] for e in environ if e.startswith(marker)), b"")
        yield {
            "pid": int(name),
            "started": fields[19].decode(),
            "command": command,
            "mark": mark.decode(errors="replace"),
        }


def _macos_processes() -> Iterator[dict[str, Any]]:
    import subprocess

    argv = ["/bin/ps", "-axEww", "-o", "pid=,lstart=,command="]
    text = subprocess.run(argv, capture_output=True, check=True, timeout=20).stdout
    for line in text.decode(errors="replace").splitlines():
        pid, *rest = line.split(None, 6)
        command = rest[5] if len(rest) > 5 else ""
        mark = command.partition(MARK + "=")[2].split(" ")[0]
        yield {"pid": int(pid), "started": " ".join(rest[:5]), "command": command, "mark": mark}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def ours(cluster: str, sessions: Iterable[Any] = ()) -> list[dict[str, Any]]:
    """The processes of the nodes of ``cluster``.

    Args:
        cluster: the cluster id.
        sessions: ``[session, node, run]`` of nodes that were recorded as started: their processes
            are found even when none of them carries the variable any more.

    Returns:
        A list of dicts as of :func:`processes`, each with ``node``, ``run`` and ``role``, one of
        ``leader`` (the ``ray start`` that the others belong to), ``raylet``, ``gcs``, ``other``.
    """
    everything = processes()
    marked: dict[int, tuple[str, str]] = {}
    for process in everything:
        parts = process["mark"].split("/")
        if len(parts) == 3 and parts[0] == cluster:
            process["node"], process["run"] = parts[1:]
            marked[process["session"]] = (parts[1], parts[2])
    recorded = {session: (node, run) for session, node, run in sessions}
    # A session that is led by a process without our mark is somebody else's.
    foreign = {p["pid"] for p in everything if p["pid"] == p["session"] and "node" not in p}
    found = []
    for process in everything:
        session = process["session"]
        if "node" not in process and session not in foreign:
            # The numbers of a state file may mean other processes since: after a reboot, say.
            is_worker = process["command"].startswith("ray::")
            owner = marked.get(session) or (recorded.get(session) if is_worker else None)
            if owner:
                process["node"], process["run"] = owner
        if "node" in process:
            process["role"] = _role(process)
            found.append(process)
    return found


def _role(process: dict[str, Any]) -> str:
    program = process["command"].split(" ")[0]
    if program.endswith("/raylet"):
        return "raylet"
    if program.endswith("/gcs_server"):
        return "gcs"
    return "leader" if process["pid"] == process["session"] else "other"


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start one node and return at once.

    Args:
        request: ``argv``, ``env`` (the whole environment), ``folder`` (made 0700; the node's log and
            Ray's temp dir lie in it), ``temp_dir``, ``log`` and ``link`` (paths in it), ``target``
            (what ``link`` points to).

    Returns:
        ``pid`` and ``started`` of the leader.
    """
    import shutil
    import subprocess

    # Interrupted in the middle, it would leave a leader that nobody has recorded. A handler, unlike
    # SIG_IGN, is not handed on to the leader.
    signal.signal(signal.SIGINT, lambda *_: None)
    private_folder(request["folder"])
    set_link(request["link"], request["target"])
    allow_open_files()
    # Sessions of earlier starts would pile up, a hundred files each.
    shutil.rmtree(request["temp_dir"], ignore_errors=True)
    os.mkdir(request["temp_dir"], 0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    log = os.open(request["log"], flags, 0o600)
    leader = subprocess.Popen(
        request["argv"],
        env=request["env"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=request["folder"],
        start_new_session=True,
    )
    return {"pid": leader.pid, "started": _started(leader.pid)}


def allow_open_files() -> None:
    """Raise the limit of open files as far as this user may, to what Ray wants at most."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def private_folder(path: str) -> None:
    """Make ``path`` a folder that only this user can enter, or refuse one that is not ours."""
    import stat

    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{path} exists and is not a folder of this user") from None
        os.chmod(path, 0o700)


def set_link(link: str, target: str) -> None:
    """Make ``link`` point to ``target``, in one step for those who look through it."""
    if os.path.islink(link) and os.readlink(link) == target:
        return
    os.makedirs(os.path.dirname(link), 0o700, exist_ok=True)
    made = f"{link}.{os.getpid()}"
    os.symlink(target, made)
    os.replace(made, link)


def stop(request: dict[str, Any]) -> dict[str, Any]:
    """Stop nodes in the order that takes 0.06 s and leaves nothing: raylets, the rest, the GCS.

    Args:
        request: ``cluster``; ``nodes`` (names; empty means all); ``sessions`` as in :func:`ours`;
            ``grace``: seconds that raylets get to end their workers.

    Returns:
        ``stopped``: node names; ``left``: processes that could not be ended.
    """
    wanted = set(request["nodes"])

    def current() -> list[dict[str, Any]]:
        mine = ours(request["cluster"], request["sessions"])
        return [p for p in mine if not wanted or p["node"] in wanted]

    first = current()
    _end([p for p in first if p["role"] == "raylet"], signal.SIGTERM, request["grace"])
    # `ray start --block` would report the death of its raylet; it has nothing to clean up.
    _end([p for p in first if p["role"] == "leader"], signal.SIGKILL, 1.0)
    rest = [p for p in current() if p["role"] != "gcs"]
    _end(rest, signal.SIGTERM, 1.0)
    _end(current(), signal.SIGTERM, 2.0)
    left: list[dict[str, Any]] = []
    for _ in range(20):
        left = current()
        if not left:
            break
        _end(left, signal.SIGKILL, 0.5)
    return {
        "stopped": sorted({p["node"] for p in first}),
        "left": [{"pid": p["pid"], "command": p["command"][:200]} for p in left],
    }


def _end(targets: list[dict[str, Any]], number: int, grace: float) -> None:
    """Signal ``targets`` and wait until they are gone, ``grace`` seconds at most."""
    for target in targets:
        if _alive(target):
            try:
                os.kill(target["pid"], number)
            except (ProcessLookupError, PermissionError):
                continue
    deadline = time.monotonic() + grace
    while any(_alive(t) for t in targets) and time.monotonic() < deadline:
        time.sleep(0.002)


def _alive(target: dict[str, Any]) -> bool:
    """Whether the very process still runs, and not another one with its number."""
    return bool(target["started"]) and _started(target["pid"]) == target["started"]


def _started(pid: int) -> str:
    """When a process began, as in :func:`processes`; empty when it is gone or a zombie."""
    if _LINUX:
        try:
            fields = _read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()
        except (OSError, IndexError):
            return ""
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    import subprocess

    argv = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
    words = done.stdout.decode().split()
    return "" if not words or "Z" in words[0] else " ".join(words[1:])


def wait(request: dict[str, Any]) -> dict[str, Any]:
    """Wait until a port answers or until a leader dies, whichever is first, or the caller has died.

    Args:
        request: ``leaders`` (``{"node", "pid", "started", "log"}``), ``port`` (``[address, number]``
            or null: wait for a death only), ``seconds`` at most.

    Returns:
        ``open``: whether the port answered; ``dead``: the leaders that died, each with ``tail``.
    """
    deadline, caller = time.monotonic() + request["seconds"], os.getppid()
    while time.monotonic() < deadline and os.getppid() == caller:
        dead = [leader for leader in request["leaders"] if not _alive(leader)]
        if dead:
            return {"open": False, "dead": [{**d, "tail": tail(d["log"])} for d in dead]}
        if request["port"] and _answers(*request["port"]):
            return {"open": True, "dead": []}
        time.sleep(0.02)
    return {"open": False, "dead": []}


def _answers(address: str, port: int) -> bool:
    import socket

    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def tail(path: str) -> str:
    """The last lines of a log file, or nothing when there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def logs(request: dict[str, Any]) -> dict[str, Any]:
    """What log files hold beyond the offsets that the caller has read.

    Args:
        request: ``folders`` and ``files``; ``offsets``: bytes read so far by path; ``limit``: bytes
            at most of each file, the last ones.

    Returns:
        ``texts``: new text by path; ``offsets`` for the next call.
    """
    paths = [p for p in request["files"] if os.path.isfile(p)]
    for folder in request["folders"]:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths += [os.path.join(folder, n) for n in names if n.endswith((".log", ".out", ".err"))]
    texts, offsets = {}, dict(request["offsets"])
    for path in paths:
        size, read = os.path.getsize(path), offsets.get(path, 0)
        # A file that is shorter than what was read of it is a new one.
        begin, data = max(read if read <= size else 0, size - request["limit"]), b""
        if size > begin:
            with open(path, "rb") as file:
                file.seek(begin)
                data = file.read(request["limit"])
            # A line that is being written is left for the next time, if there is one before it.
            data = data[: data.rfind(b"\n") + 1] or data
            texts[path] = data.decode(errors="replace")
        offsets[path] = begin + len(data)
    return {"texts": texts, "offsets": offsets}


def find(request: dict[str, Any]) -> dict[str, Any]:
    """The processes of a cluster, as :func:`ours` gives them."""
    return {"processes": ours(request["cluster"], request["sessions"])}


def main() -> None:
    """Do what the request on standard input says; an expected failure is an ``error`` in the answer."""
    request = json.load(sys.stdin)
    operations = {"start": start, "stop": stop, "wait": wait, "logs": logs, "find": find}
    try:
        answer = operations[request["op"]](request)
    except OSError as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

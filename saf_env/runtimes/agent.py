"""Starts, finds and stops the processes of native nodes. One file, standard library only.

It runs on the node's own host under any CPython from 3.9 on, over any transport: a JSON request
in, a JSON answer out. So nothing of saf-env has to be installed on a host.

How our processes are known: every node is started in a session of its own (``setsid``), with the
variable ``SAF_ENV_NODE=<cluster id>/<node>/<run>``. A process is a node's when it carries the
variable, or when it is in the session of one that does. Both are needed: Ray's workers overwrite
their environment block when they set their title, and a task may start a session of its own.

Paths in a node's command line must not have blanks: Ray starts its workers through ``bash -c`` and
``LD_PRELOAD`` without quoting. So every node runs its environment through a link in the cluster's
temp folder, whatever the path of the project is.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if (
    TYPE_CHECKING
):  # this and other slow modules are imported where they are needed: it has to be quick
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

MARK = "SAF_ENV_NODE"
TAIL_BYTES = 20_000
CAFFEINATE = "/usr/bin/caffeinate"  # comes with macOS
SERVICE = "service.json"  # what ``saf-env service install`` has noted of a node, on its host
RUNNING = "running.json"  # pid and start time of what a service manager has started, beside it
OPEN_FILES = 65_536  # what Ray recommends for a node with many workers
_LINUX = sys.platform.startswith("linux")


def processes() -> list[dict[str, Any]]:
    """Every process of the machine that may be looked at.

    Each with ``pid``, ``session``, ``started`` (text that changes when a pid is used again),
    ``command`` and ``mark`` (empty without one).
    """
    text = "" if _LINUX else _ps("-axEww", "-o", "pid=,lstart=,command=")
    found = []
    for process in _linux_processes() if _LINUX else macos_processes(text):
        try:
            found.append({**process, "session": os.getsid(process["pid"])})
        except (ProcessLookupError, PermissionError):
            continue
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


def _ps(*options: str) -> str:
    import subprocess

    # Dates in the C locale and in UTC: a process must have one start time, whoever looks at it.
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    argv = ["/bin/ps", *options]
    done = subprocess.run(argv, env=env, capture_output=True, timeout=20, check=False)
    return done.stdout.decode(errors="replace")


def macos_processes(text: str) -> Iterator[dict[str, Any]]:
    """What macOS's ``ps`` says of processes: the variables follow the command line."""
    for line in text.splitlines():
        pid, *rest = line.split(None, 6)
        command = rest[5] if len(rest) > 5 else ""
        mark = command.partition(MARK + "=")[2].split(" ")[0]
        yield {"pid": int(pid), "started": " ".join(rest[:5]), "command": command, "mark": mark}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def ours(
    everything: list[dict[str, Any]], cluster: str, sessions: Iterable[Any] = ()
) -> list[dict[str, Any]]:
    """Those of all ``processes()`` that are of the nodes of ``cluster``.

    Args:
        everything: as of :func:`processes`.
        cluster: the cluster id.
        sessions: ``[pid, node, run, started]`` of leaders that were recorded as started: a process
            with that number and start time is the very one, whatever its variable says (the project
            may have been moved since); and their workers are found even when no process carries the
            variable any more.

    Returns:
        Each with ``node``, ``run`` and ``role``, one of ``leader`` (the ``ray start`` that the
        others belong to), ``raylet``, ``gcs``, ``other``.
    """
    marked: dict[int, tuple[str, str]] = {}
    for process in everything:
        parts = process["mark"].split("/")
        if len(parts) == 3 and parts[0] == cluster:
            process["node"], process["run"] = parts[1:]
            marked[process["session"]] = (parts[1], parts[2])
    recorded = {pid: (node, run, started) for pid, node, run, started in sessions}
    for process in everything:
        node, run, started = recorded.get(process["pid"], ("", "", ""))
        if node and process["started"] == started and "node" not in process:
            process["node"], process["run"] = node, run
            marked[process["session"]] = (node, run)
    # A session that is led by a process without our mark is somebody else's.
    foreign = {p["pid"] for p in everything if p["pid"] == p["session"] and "node" not in p}
    found = []
    for process in everything:
        session = process["session"]
        if "node" not in process and session not in foreign:
            # The numbers of a state file may mean other processes since: after a reboot, say.
            by_number = recorded if process["command"].startswith("ray::") else {}
            if owner := marked.get(session) or by_number.get(session):
                process["node"], process["run"] = owner[:2]
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


def _is_rays(process: dict[str, Any]) -> bool:
    """Whether a process is one of Ray's Python programs, and not what a task has started."""
    command = process["command"]
    ray = command.startswith("ray::") or "/site-packages/ray/" in command or "-m ray." in command
    return ray and process["role"] in ("leader", "other")


def start(request: Mapping[str, Any]) -> dict[str, Any]:
    """Start one node and return at once.

    Args:
        request: ``argv``; ``env``, the whole environment but for what every login has (HOME, USER,
            LOGNAME); ``folder`` (made 0700); in it ``temp_dir`` (Ray's), ``log``, and ``links``:
            what each has to point to, by path; ``service``: the folder of the node's service, which
            is ended first, so that there are not two starts, and then watches what was started.

    Returns:
        ``pid`` and ``started`` of the leader.
    """
    import shutil
    import subprocess

    # Interrupted in the middle, it would leave a leader that nobody has recorded. A handler, unlike
    # SIG_IGN, is not handed on to the leader.
    signal.signal(signal.SIGINT, lambda *_: None)
    service = _service(request.get("service", ""))
    if service.get("temp") != request["folder"]:  # none, or another cluster's
        service = {}
    _end_service(service)
    private_folder(request["folder"])
    for link, target in request["links"].items():
        set_link(link, os.path.abspath(target))
    allow_open_files()
    # Sessions of earlier starts would pile up, a hundred files each.
    shutil.rmtree(request["temp_dir"], ignore_errors=True)
    os.mkdir(request["temp_dir"], 0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    log = os.open(request["log"], flags, 0o600)
    leader = subprocess.Popen(
        request["argv"],
        env={**_login(), **request["env"]},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=request["folder"],
        start_new_session=True,
    )
    if awake := keeping_awake(sys.platform, leader.pid):
        null = subprocess.DEVNULL
        subprocess.Popen(
            awake, env={}, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
    _manage(service.get("start", ()))
    return {"pid": leader.pid, "started": _started(leader.pid)}


def _service(folder: str) -> dict[str, Any]:
    """What is noted of the service in ``folder``; empty when there is none."""
    if not folder:
        return {}
    try:
        note: dict[str, Any] = json.loads(_read(os.path.join(folder, SERVICE)))
    except (OSError, ValueError):
        return {}
    return {**note, "folder": folder}


def _end_service(service: Mapping[str, Any]) -> None:
    """Let the service manager end a service, or else it would start the node behind our back."""
    if not service:
        return
    _manage(service["stop"])
    try:
        keeper = json.loads(_read(os.path.join(service["folder"], RUNNING)))
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + 60.0  # launchd does not wait for what it ends
    while alive(keeper) and time.monotonic() < deadline:
        time.sleep(0.05)


def _manage(commands: Sequence[Sequence[str]]) -> None:
    """Ask the user's service manager for something.

    One that is not there, or knows no such service, has none that it could restart.
    """
    import subprocess

    runtime = f"/run/user/{os.getuid()}"
    env = {**_login(), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "XDG_RUNTIME_DIR": runtime}
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True}
    for argv in commands:
        try:
            # Longer than managers give a service to end (STOP_SECONDS), after which they kill it.
            subprocess.run(argv, env=env, timeout=75, check=False, **quiet)
        except FileNotFoundError:
            return
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(errno.ETIMEDOUT, f"{argv[0]} is silent", argv[0]) from error


def keeping_awake(system: str, leader: int) -> list[str]:
    """The command that keeps a Mac from sleeping until the process ``leader`` has ended.

    Idle sleep of system (-i) and disk (-m), and on mains power all sleep (-s); see caffeinate(8).
    Empty elsewhere, and where it is not there: the check ``sleep`` tells of a Mac that may sleep.
    """
    if system != "darwin" or not os.access(CAFFEINATE, os.X_OK):
        return []
    return [CAFFEINATE, "-ims", "-w", str(leader)]


def _login() -> dict[str, str]:
    """What every program of a user has to know of him; Ray's libraries look for some of it."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:  # a number without an account
        return {}
    return {"HOME": user.pw_dir, "LOGNAME": user.pw_name, "USER": user.pw_name}


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


def stop(request: Mapping[str, Any]) -> dict[str, Any]:
    """Stop nodes in the order that is quick and leaves nothing: raylets, Ray's others, the rest.

    Args:
        request: ``cluster``; ``nodes`` (names; empty means all); ``sessions`` as in :func:`ours`;
            ``grace``: seconds that raylets get to end their workers; ``head``: whether a head on
            another host may hear them sign off; ``services``: the folder with those of the nodes,
            which are ended first.

    Returns:
        ``stopped``: names of nodes; ``left``: processes that could not be ended; ``services``:
        names of the nodes that have one.
    """
    wanted, sessions = set(request["nodes"]), {one[0]: one for one in request["sessions"]}

    def cluster() -> list[dict[str, Any]]:
        found = ours(processes(), request["cluster"], sessions.values())
        # Ray's agents overwrite their variables, and can outlive all that tells whose they are.
        for p in found:
            sessions.setdefault(p["session"], (p["session"], p["node"], p["run"], None))
        return found

    def current() -> list[dict[str, Any]]:
        return [p for p in cluster() if not wanted or p["node"] in wanted]

    everything = cluster()
    first = [p for p in everything if not wanted or p["node"] in wanted]
    services = _end_services(request.get("services", ""), wanted, request["cluster"])
    if not first:
        return {"stopped": [], "left": [], "services": services}
    raylets = [p for p in first if p["role"] == "raylet"]
    # A raylet that has lost its GCS waits for that, whatever it is told.
    has_gcs = request["head"] or any(p["role"] == "gcs" for p in everything)
    _end(raylets, signal.SIGTERM, request["grace"] if has_gcs else 0.3)
    # Without a raylet Ray's own have nothing to clean up; to ask them first takes twice the time.
    _end([p for p in first if _is_rays(p)], signal.SIGKILL, 1.0)
    _end(current(), signal.SIGTERM, 2.0)
    for _ in range(20):
        if not (left := current()):
            break
        _end(left, signal.SIGKILL, 0.5)
    return {
        "stopped": sorted({p["node"] for p in first}),
        "left": [{"pid": p["pid"], "command": p["command"][:200]} for p in left],
        "services": services,
    }


def _end_services(folder: str, wanted: Iterable[str], cluster: str) -> list[str]:
    """End the services in ``folder`` of the nodes ``wanted``, all of them when it is empty.

    The head's comes last: the others sign off with it. Another cluster's are left alone.
    """
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = {name: _service(os.path.join(folder, name)) for name in names}
    ours = [n for n in names if os.path.basename(found[n].get("temp", "")) == cluster]
    ended = [name for name in ours if not wanted or name in wanted]
    heads = [name for name in ended if found[name]["node"]["role"] == "head"]
    others = [name for name in ended if name not in heads]
    for group in (others, heads):
        _side_by_side([found[name] for name in group])
    return others + heads


def _side_by_side(services: Sequence[Mapping[str, Any]]) -> None:
    """End services at the same time: each may take a minute to stop its node."""
    import threading

    failed: list[Exception] = []

    def end(service: Mapping[str, Any]) -> None:
        try:
            _end_service(service)
        except Exception as error:  # raised below
            failed.append(error)

    # Daemons: whoever is interrupted does not wait for them.
    threads = [threading.Thread(target=end, args=(one,), daemon=True) for one in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _end(targets: list[dict[str, Any]], number: int, grace: float) -> None:
    """Signal ``targets`` and wait until they are gone, ``grace`` seconds at most."""
    for target in targets:
        if alive(target):
            try:
                os.kill(target["pid"], number)
            except (ProcessLookupError, PermissionError):
                continue
    deadline = time.monotonic() + grace
    while any(alive(t) for t in targets) and time.monotonic() < deadline:
        time.sleep(0.002 if _LINUX else 0.05)  # elsewhere every look starts a process


def alive(target: Mapping[str, Any]) -> bool:
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
    words = _ps("-o", "stat=,lstart=", "-p", str(pid)).split()
    return "" if not words or "Z" in words[0] else " ".join(words[1:])


def wait(request: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until a port answers or until a node dies, whichever is first, or the caller has died.

    Args:
        request: ``leaders`` (``{"node", "pid", "started", "log", "logs"}``), ``port`` (``[address,
            number]``, or null: wait for a death only), ``seconds`` at most.

    Returns:
        ``open``: whether the port answered; ``dead``: ``node`` and ``tail`` of those that died.
    """
    deadline, caller, turn = time.monotonic() + request["seconds"], os.getppid(), 0
    while time.monotonic() < deadline and os.getppid() == caller:
        # A leader takes half a minute to notice that its raylet died; this look costs more.
        dead = _dead(request["leaders"], thorough=turn % 10 == 0)
        if dead:
            return {"open": False, "dead": dead}
        if request["port"] and answers(*request["port"]):
            return {"open": True, "dead": []}
        turn += 1
        time.sleep(0.02)
    return {"open": False, "dead": []}


def _dead(leaders: list[dict[str, Any]], *, thorough: bool) -> list[dict[str, Any]]:
    dead = [{"node": x["node"], "tail": tail(x["log"])} for x in leaders if not alive(x)]
    if dead or not thorough:
        return dead
    ended = {parent: name for parent, name in _zombies() if name in ("raylet", "gcs_server")}
    for leader in leaders:
        if name := ended.get(leader["pid"]):
            stem = os.path.join(leader["logs"], name)
            text = tail(stem + ".err").strip() or tail(stem + ".out").strip()
            dead.append({"node": leader["node"], "tail": f"{text}\n{name} has ended"})
    return dead


def _zombies() -> Iterator[tuple[int, str]]:
    """Parent and name of the processes that have ended, and whose parent has not noticed."""
    if not _LINUX:
        rows = map(str.split, _ps("-axo", "ppid=,stat=,ucomm=").splitlines())
        yield from ((int(row[0]), row[2]) for row in rows if len(row) > 2 and "Z" in row[1])
        return
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            head, _, rest = _read(f"/proc/{name}/stat").rpartition(b")")
        except OSError:
            continue
        state, parent = rest.split()[:2] if rest else (b"", b"0")
        if state == b"Z":
            yield int(parent), head.partition(b"(")[2].decode(errors="replace")


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
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


def logs(request: Mapping[str, Any]) -> dict[str, Any]:
    """What log files hold beyond the offsets that the caller has read.

    Args:
        request: ``folders`` and ``files``; ``offsets``: bytes read so far by path; ``limit``: bytes
            at most of each file, the last ones. Returned: ``texts`` by path, new ``offsets``.
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


HOSTS = "/etc/hosts"
_AS_IT_IS = "surrogateescape"  # others may have written it in another encoding


def names(request: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``lines`` those of /etc/hosts that are marked as the cluster's; none removes them.

    Args:
        request: ``cluster``: its id; ``lines``, each with its mark ``# saf-env <id>`` at the end;
            ``look``: true to see only whether it can be done.

    Returns:
        ``changed``: whether the file was written; ``refused``: why it could not be, or empty.
    """
    try:
        if _other_lines(request["cluster"], request["lines"]) is None:
            return {"changed": False, "refused": ""}
        if request["look"]:
            may = _has_names(request["lines"]) or os.access(os.path.dirname(HOSTS), os.W_OK)
            return {"changed": False, "refused": "" if may else os.strerror(errno.EACCES)}
        held = _hold(os.path.dirname(HOSTS))
        try:
            _write_names(request["cluster"], request["lines"])
        finally:
            os.close(held)
    except OSError as error:
        return {"changed": False, "refused": error.strerror or str(error)}
    return {"changed": True, "refused": ""}


def _hosts_lines() -> list[str]:
    """The lines of the hosts file, with their ends."""
    try:
        with open(HOSTS, encoding="utf-8", errors=_AS_IT_IS, newline="") as file:
            return file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _has_names(lines: Sequence[str]) -> bool:
    """Whether the hosts file gives every name of ``lines`` its address, in whoever's lines."""
    known: dict[str, set[str]] = {}
    for line in _hosts_lines():
        address, *found = line.partition("#")[0].split() or [""]
        for name in found:
            known.setdefault(name, set()).add(address)
    wanted = [line.split()[:2] for line in lines]
    return all(known.get(name) == {address} for address, name in wanted)


def _other_lines(cluster: str, lines: Sequence[str]) -> list[str] | None:
    """All lines of the hosts file but the cluster's; None if those are ``lines``, wherever."""
    found = _hosts_lines()
    ours = [line for line in found if line.rstrip().endswith(f"# saf-env {cluster}")]
    if [line.rstrip() for line in ours] == [*lines]:
        return None
    return [line for line in found if line not in ours]


def _write_names(cluster: str, lines: Sequence[str]) -> None:
    kept = _other_lines(cluster, lines)
    if kept is None:  # another command was quicker
        return
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    after = "".join([*kept, *(line + "\n" for line in lines)])
    made = f"{HOSTS}.saf-env-{os.getpid()}"
    try:
        with open(made, "w", encoding="utf-8", errors=_AS_IT_IS, newline="") as file:
            file.write(after)
        os.chmod(made, os.stat(HOSTS).st_mode & 0o777 if os.path.exists(HOSTS) else 0o644)
        _replace(made, HOSTS, after)
    finally:
        if os.path.exists(made):
            os.unlink(made)


def _hold(folder: str) -> int:
    """Lock ``folder`` until what is returned is closed: two clusters must not replace one file."""
    import fcntl

    handle, end = os.open(folder, os.O_RDONLY), time.monotonic() + 5.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() > end:
                os.close(handle)
                raise
        time.sleep(0.02)


def _replace(made: str, path: str, text: str) -> None:
    """Rename ``made`` to ``path``; a file that is mounted can only be written, with ``text``."""
    try:
        os.replace(made, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with open(path, "r+", encoding="utf-8", errors=_AS_IT_IS, newline="") as file:
            file.write(text)
            file.truncate()


def find(request: Mapping[str, Any]) -> dict[str, Any]:
    """The processes of a cluster, as :func:`ours` gives them."""
    return {"processes": ours(processes(), request["cluster"], request["sessions"])}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what ``request["op"]`` says; a failure of the system is an ``error`` in the answer."""
    operations = {"start": start, "stop": stop, "wait": wait, "logs": logs, "find": find}
    operations["names"] = names
    try:
        return operations[request["op"]](request)
    except OSError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Read a request on standard input and print its answer."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()

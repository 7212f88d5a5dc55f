"""The first process of a container node: a gate, ``ray start``, and an end that Ray is told of.

Run inside the container, standard library only. Without it a stopped container would take its
raylet along without a word, and the head would count the node as alive for seconds.

Whoever starts the container, be it its engine after a reboot, starts no Ray that is not as planned:
the fingerprint of what is there must be the plan's, which comes as a variable, and the files those
that the image was built with. The image has the probe and what makes a fingerprint for it.

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
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module typing is slow to import
    from typing import Any

PLANNED = "SAF_ENV_FINGERPRINT"
CONTAINER = "SAF_ENV_CONTAINER"
REFUSED = 78  # the exit code of one that may not start its node, see saf_env.runtimes.services
IMAGE_TIME = 315_532_800 * 10**9  # of every file and folder, see images/environment.py; nanoseconds
LISTED = 5
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
        if reasons := refused():
            tell(reasons)
            return REFUSED
        if waiting:
            wait(waiting[1], int(waiting[2]))
        clear(SESSIONS)
        child = subprocess.Popen(command)
        return child.wait()
    except Stopped:
        if child is not None:
            drain(child)
        return 0


def refused() -> list[str]:
    """Why the node may not start; empty when it is what was planned."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which -I leaves out
    probe, prints = import_module("probe"), import_module("fingerprint")
    wanted = ["interpreter", "environment", "packages"]
    answer = probe.gather({"only": wanted})
    facts = answer["facts"]
    reasons = [f"its {name} cannot be seen: {why}" for name, why in answer["unknown"].items()]
    actual, planned = prints.actual_fingerprint(facts), os.environ.get(PLANNED, "")
    if not reasons and actual != planned:
        reasons = [f"its fingerprint is {actual[:12]}, planned is {planned[:12] or 'none'}"]
        reasons += packages(facts)
    root = facts.get("environment", {}).get("path")
    if root and not untouched(root, os.path.join(root, probe.MANIFEST)):
        # As `saf-env check` does: what may have changed is hashed.
        seen = probe.gather({"only": ["files"]})
        reasons += files(seen, facts["environment"]["marker"] or {})
    return reasons


def packages(facts: dict[str, Any]) -> list[str]:
    """How the packages differ from those that the image was built with."""
    built = (facts["environment"]["marker"] or {}).get("packages", {})
    found: dict[str, list[str]] = {}
    for name, version in facts["packages"]:
        found.setdefault(name, []).append(version)
    names = [n for n in sorted({*built, *found}) if found.get(n) != [built.get(n)]]
    return [
        f"{name} is {' and '.join(found.get(name, ['missing']))}, "
        f"the image was built with {built.get(name, 'none')}"
        for name in names[:LISTED]
    ]


def untouched(root: str, manifest: str) -> bool:
    """Whether every folder and file has the time and size that the image was built with.

    A folder has another time when a name in it has come or gone. Nothing is read but the manifest.
    """
    try:
        with open(manifest, "rb") as file:
            folders = import_module("json").load(file)["folders"]
        for folder, (_, _, known) in folders.items():
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            handle = os.open(os.path.join(root, folder), flags)
            try:
                if os.fstat(handle).st_mtime_ns != IMAGE_TIME:
                    return False
                for name, (size, _, _, _, *runs) in known.items():
                    seen = os.stat(name, dir_fd=handle, follow_symlinks=False)
                    kept = seen.st_mode & 0o100 or not runs  # one that may be run, still may
                    if not kept or (seen.st_size, seen.st_mtime_ns) != (size, IMAGE_TIME):
                        return False
            finally:
                os.close(handle)
    except (OSError, ValueError, KeyError):
        return False
    return True


def files(answer: dict[str, Any], marker: dict[str, Any]) -> list[str]:
    """What is wrong with the files, from the probe's answer and the environment's marker."""
    if "files" not in answer["facts"]:
        return [f"its files cannot be compared: {answer['unknown'].get('files', '')}"]
    seen = answer["facts"]["files"]
    if seen["manifest_sha256"] != marker.get("manifest_sha256"):
        return ["the manifest of its files was changed"]
    kinds = {"changed": "changed", "missing": "missing", "foreign": "in no package"}
    return [
        f"{count} of its files {'is' if count == 1 else 'are'} {what}: {', '.join(names[:LISTED])}"
        for kind, what in kinds.items()
        for count, names in [seen[kind]]
        if count
    ]


def tell(reasons: list[str]) -> None:
    """Say in the container's log why its node does not start, and what to do."""
    node = os.environ.get(CONTAINER, "").rpartition("/")[2] or "the node"
    lines = [
        f"{node} is not started: its image is not what was planned",
        *(f"    {reason}" for reason in reasons),
        "run `saf-env check --fix`, then `saf-env up`, on the host that the cluster is run from",
    ]
    sys.stderr.writelines(f"saf-env: {line}\n" for line in lines)


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

"""A Docker engine on one of the other machines: this machine's programs, all else its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.hosts.machines.machine import Machine
from tests.hosts.machines.outside import PATH, outside
from tests.projects import eventually

PROGRAMS = (
    *("containerd", "containerd-shim-runc-v2", "ctr", "docker-init", "docker-proxy", "dockerd"),
    *("iptables", "ip6tables", "modprobe", "runc"),
)
SOCKET = "/var/run/docker.sock"

_LIBRARY = re.compile(r"(/\S+) \(0x")

# Every hierarchy of control groups that this machine has; images and containers lie on a real disk.
_START = """
set -eu
if ! mountpoint -q /sys/fs/cgroup; then
    mount -o remount,rw /sys
    [ "$1" = cgroup2 ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r _ folder kind options _; do
        mkdir -p "$folder"
        mount -t "$kind" -o "$options" "$kind" "$folder"
    done
fi
rm -f /var/run/docker.pid
setsid dockerd --bip 172.31.0.1/24 >>/var/log/dockerd.log 2>&1 </dev/null &
"""


def install(machine: Machine) -> None:
    """Give a machine what an engine needs, without starting it."""
    files = [Path(found) for name in PROGRAMS if (found := shutil.which(name, path=PATH))]
    assert {"dockerd", "runc"} <= {file.name for file in files}, "no engine here: `make engine`"
    plugins = list(Path("/usr/lib").glob("*/xtables/*.so"))
    for file in [*files, *plugins]:
        seen = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        for one in {file, *map(Path, _LIBRARY.findall(seen.stdout))}:
            # The loader and the C library are the machine's own: it is of the same release.
            place = f"/usr{one}" if one.parts[1] in ("bin", "sbin", "lib", "lib64") else str(one)
            if machine.run(["test", "-e", place], check=False).returncode:
                machine.put(place, one.resolve(), mode=0o755)


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[None]:
    """An engine on ``machine``."""
    install(machine)
    start(machine)
    try:
        yield
    finally:
        if machine.on:
            stop(machine)


def start(machine: Machine) -> None:
    """Start the engine, also after a boot; returns when it answers."""
    groups = [
        " ".join(words)
        for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()
        if (words := line.split())[2] in ("cgroup", "cgroup2")
    ]
    kind = groups[0].split()[2]
    machine.run(["sh", "-c", _START, "sh", kind], stdin="\n".join([*groups, ""]))
    eventually(lambda: answers(machine), 60, f"the engine of {machine.name} answers")


def stop(machine: Machine) -> None:
    """End the engine, and its containers with it."""
    for process in machine.processes():
        if process.argv[0] == "dockerd":
            os.kill(process.pid, signal.SIGTERM)
    eventually(lambda: not _runs(machine), 60, f"the engine of {machine.name} ends")


def _runs(machine: Machine) -> bool:
    return any(process.argv[0] == "dockerd" for process in machine.processes())


def docker(machine: Machine, *arguments: str) -> str:
    """Run this machine's ``docker`` with the engine of ``machine``; returns what it prints."""
    there = machine.outside(SOCKET)
    argv = ["docker", "--host", f"unix://{there}", *arguments]
    return outside(*argv, timeout=120).stdout.strip()


def answers(machine: Machine) -> bool:
    """Whether its engine does."""
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(machine.outside(SOCKET))) == 0

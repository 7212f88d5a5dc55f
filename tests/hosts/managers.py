"""A real systemd user manager on another machine, which starts root's services as after a boot."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.hosts.machines.machine import Machine
from tests.hosts.several import ROOTS
from tests.projects import eventually

BUS = {"XDG_RUNTIME_DIR": "/run/user/0"}

# What systemd-logind does for a user who lingers; in a control group that is the manager's own.
MANAGER = r"""
mkdir -p /run/systemd/system /run/user/0 /var/lib/systemd/linger
chmod 700 /run/user/0
touch /var/lib/systemd/linger/root
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
umount /sys/fs/cgroup
setsid unshare --cgroup sh -c '
    sleep "$1" && mount -t cgroup2 none /sys/fs/cgroup && exec /lib/systemd/systemd --user
' sh "$2" >/var/log/manager.log 2>&1 </dev/null &
"""


def manager(machine: Machine, *, after: int = 0) -> None:
    """Let root's service manager of a machine run, as it does after every boot.

    Args:
        machine: which.
        after: seconds until it begins, which are not waited for.
    """
    group = f"{machine.network.name}-{machine.name}"
    machine.run(["sh", "-eu", "-c", MANAGER, "sh", group, str(after)], env=BUS)
    if not after:
        eventually(lambda: ctl(machine, "show", "--property=Version"), 20, "its manager runs")


def forget_manager(machine: Machine) -> None:
    """Switch a machine off, and remove the control group of its manager."""
    machine.kill_all()
    group = f"{machine.network.name}-{machine.name}"
    for folder in Path("/sys/fs/cgroup").glob(f"**/{group}"):
        subprocess.run(["find", folder, "-depth", "-type", "d", "-delete"], check=True)


def ctl(machine: Machine, *words: str) -> str:
    """What the manager of a machine says; nothing while it is not there."""
    done = machine.run(["systemctl", "--user", *words], env=BUS, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def units(machine: Machine) -> str:
    """The files that a manager of a machine has of services of nodes."""
    return machine.run(["find", f"{ROOTS}/.config", "-name", "saf-env*"]).stdout


def reboot(machine: Machine) -> None:
    """Cut the power, and switch it on again."""
    machine.kill_all()
    machine.boot()
    manager(machine)


def raylets(machine: Machine) -> list[int]:
    """Those that run on a machine, by their ids out here."""
    return [p.pid for p in machine.processes() if p.argv[0].endswith("/raylet")]

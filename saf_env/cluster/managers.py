"""What starts services on a host: systemd for a user, or launchd, asked by scripts for ``sh``."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saf_env.cluster.hosts import Host
from saf_env.errors import BringUpError
from saf_env.plan.model import HostPlan
from saf_env.platforms import PLATFORMS
from saf_env.runtimes import services as rendered
from saf_env.runtimes.services import Service
from saf_env.transports.base import CommandResult

State = Literal["absent", "active", "inactive", "failed", "outdated"]

_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}

SECONDS = rendered.STOP_SECONDS + 30.0
"""How long a script may take: a launcher has to stop its node in it."""

_LOGIN = 'printf "%s\\n" "$(id -u)" "$(id -un)" "$(pwd)"'


@dataclass(frozen=True)
class Login:
    """Who logs in to a host."""

    uid: int
    name: str
    home: Path


def run(host: Host, script: str, *words: str) -> CommandResult:
    """Run a script in the home of the host's user."""
    # Over SSH that is where commands run.
    home = pwd.getpwuid(os.getuid()).pw_dir if host.plan.here else None
    argv = ["sh", "-c", script, "sh", *words]
    return host.transport.run(argv, env=_PATH, timeout=SECONDS, cwd=home)


def login(host: Host) -> Login:
    """Who logs in to ``host``."""
    seen = run(host, _LOGIN)
    try:
        uid, name, home = seen.stdout.splitlines()
        return Login(int(uid), name, Path(home))
    except ValueError:
        raise BringUpError(
            f"{host.plan.name}: nobody knows who logs in there: {seen.tail(2)}",
            hint="look at what is named above, then run the same command again",
        ) from None


class Systemd:
    """The systemd user manager of a Linux host; see systemctl(1), loginctl(1)."""

    _CTL = r"""
XDG_RUNTIME_DIR=/run/user/$(id -u) && export XDG_RUNTIME_DIR
ctl() { systemctl --user "$@"; }
"""
    # Without lingering a user's manager starts when he logs in, and not when the machine does. It
    # starts when lingering begins, and nobody says when it has: it answers after a moment.
    _PREPARE = r"""
[ -d /run/systemd/system ] || exit 9
[ -e "/var/lib/systemd/linger/$(id -un)" ] || loginctl enable-linger || exit 8
seconds=10
until ctl show --property=Version >/dev/null 2>&1 || [ $seconds -eq 0 ]; do
    sleep 1
    seconds=$((seconds - 1))
done
ctl show --property=Version >/dev/null || exit 9
"""
    # A launcher that waits, or watches, knows the plan that it was started with: a new one follows.
    _ENABLE = r"""
ctl daemon-reload && ctl enable "$1" || exit 1
now=$2
case $(ctl show --property=ActiveState --value "$1") in
    active | activating | reloading)
        now=now
        touch -- "$3/released" && ctl stop "$1" || exit 1 ;;
esac
rm -f -- "$3/released" "$3/given-up"
ctl reset-failed "$1" 2>/dev/null
[ -z "$now" ] || ctl start "$1"
"""
    _REMOVE = r"""
touch -- "$3/released" 2>/dev/null
ctl stop "$2" 2>/dev/null
ctl disable "$2" 2>/dev/null
rm -f -- "$1" "$(dirname -- "$1")/default.target.wants/$2" && rm -rf -- "$3" || exit 1
ctl daemon-reload 2>/dev/null
ctl reset-failed "$2" 2>/dev/null
exit 0
"""
    _STATUS = 'ctl show --property=ActiveState --value "$1"'

    def name(self, cluster: str, node: str) -> str:
        """Name of the unit."""
        return rendered.unit_name(cluster, node)

    def file(self, name: str) -> str:
        """The unit's file, below the user's home."""
        return f".config/systemd/user/{name}"

    def text(self, service: Service, user: Login) -> bytes:
        """What is in the file."""
        return rendered.unit(service).encode()

    def commands(self, name: str, user: Login) -> tuple[list[list[str]], list[list[str]]]:
        """By what a service is ended, and by what it is started."""
        ctl = ["systemctl", "--user"]
        return (
            [[*ctl, "stop", name], [*ctl, "reset-failed", name]],
            [[*ctl, "start", "--no-block", name]],
        )

    def prepare(self, host: Host, user: Login, node: str) -> None:
        """Let the manager start with the machine.

        Raises:
            BringUpError: there is none, or the user may not have that.
        """
        done = run(host, self._CTL + self._PREPARE)
        if done.code == 8:
            raise BringUpError(
                f"{host.plan.name}: {user.name} may not have services that start at boot: "
                f"{done.tail(2)}",
                hint=f"run `sudo loginctl enable-linger {user.name}` on {host.plan.name}, then the "
                "same command again",
                node=node,
            )
        if not done.ok:
            raise self.refused(host, node, done)

    def enable(self, host: Host, name: str, folder: str, *, start: bool) -> CommandResult:
        """Have the service started at every boot, and with ``start`` now.

        One that was installed before and is at work is started anew; its node runs on.
        """
        return run(host, self._CTL + self._ENABLE, name, "now" if start else "", folder)

    def remove(self, host: Host, name: str, folder: str) -> CommandResult:
        """Remove a service with its file and its folder; the node runs on."""
        return run(host, self._CTL + self._REMOVE, self.file(name), name, folder)

    def status(self, host: Host, name: str, folder: str) -> State:
        """What the service does; nothing where no manager runs."""
        said = run(host, self._CTL + self._STATUS, name).stdout.strip()
        if said == "failed":
            return "failed"
        return "active" if said in ("active", "activating", "reloading") else "inactive"

    def refused(self, host: Host, node: str, done: CommandResult) -> BringUpError:
        """The error for a host whose manager does not answer, or does not take the service."""
        return BringUpError(
            f"{host.plan.name}: no systemd user manager answers there, which would start {node} "
            f"after a reboot: {done.tail(2) or 'systemd does not run'}",
            hint="have systemd run that machine, with its user sessions (Debian: `apt-get install "
            "systemd-sysv libpam-systemd dbus-user-session`), then log in anew; in a container, "
            "let what starts the container run `saf-env up`",
            node=node,
        )


class Launchd:
    """The launchd of a Mac, for the user's agents; see launchctl(1). It starts them at login."""

    # As above. And launchd has read the file of one that it knows, and does not wait for its end.
    _ENABLE = r"""
domain=gui/$(id -u) now=$2
if said=$(launchctl print "$domain/$1" 2>/dev/null); then
    case $said in
        # One that failed is tried again, sooner or later.
        *"state = running"* | *"state = spawn scheduled"* | *"last exit code = "[1-9]*) now=now ;;
    esac
    touch -- "$3/released" || exit 1
    launchctl bootout "$domain/$1" 2>/dev/null
    seconds=60
    while launchctl print "$domain/$1" >/dev/null 2>&1 && [ $seconds -gt 0 ]; do
        sleep 1
        seconds=$((seconds - 1))
    done
fi
rm -f -- "$3/released" "$3/given-up"
[ -z "$now" ] || launchctl bootstrap "$domain" "$4"
"""
    _REMOVE = r"""
touch -- "$3/released" 2>/dev/null
launchctl bootout "gui/$(id -u)/$2" 2>/dev/null
rm -f -- "$1" && rm -rf -- "$3"
"""
    # Who gives up ends as if all were well: launchd would try for ever.
    _STATUS = 'launchctl print "gui/$(id -u)/$1" && { [ ! -e "$2/given-up" ] || exit 9; }'

    def name(self, cluster: str, node: str) -> str:
        """Label of the agent."""
        return rendered.label(cluster, node)

    def file(self, name: str) -> str:
        """See :meth:`Systemd.file`."""
        return f"Library/LaunchAgents/{name}.plist"

    def text(self, service: Service, user: Login) -> bytes:
        """See :meth:`Systemd.text`."""
        return rendered.agent(service, user.home)

    def commands(self, name: str, user: Login) -> tuple[list[list[str]], list[list[str]]]:
        """See :meth:`Systemd.commands`."""
        domain = f"gui/{user.uid}"
        return (
            [["launchctl", "bootout", f"{domain}/{name}"]],
            [["launchctl", "bootstrap", domain, str(user.home / self.file(name))]],
        )

    def prepare(self, host: Host, user: Login, node: str) -> None:
        """Nothing: launchd always runs."""

    def enable(self, host: Host, name: str, folder: str, *, start: bool) -> CommandResult:
        """See :meth:`Systemd.enable`. The file alone is enough for the next login."""
        return run(host, self._ENABLE, name, "now" if start else "", folder, self.file(name))

    def remove(self, host: Host, name: str, folder: str) -> CommandResult:
        """See :meth:`Systemd.remove`."""
        return run(host, self._REMOVE, self.file(name), name, folder)

    def status(self, host: Host, name: str, folder: str) -> State:
        """See :meth:`Systemd.status`."""
        done = run(host, self._STATUS, name, folder)
        return agent_state(done.stdout, given_up=done.code == 9)

    def refused(self, host: Host, node: str, done: CommandResult) -> BringUpError:
        """See :meth:`Systemd.refused`."""
        return BringUpError(
            f"{host.plan.name}: launchd does not take the agent of {node}: {done.tail(2)}",
            hint="log in on that Mac's own screen (agents start at login: have it log in by itself "
            "after a reboot), then run the same command again",
            node=node,
        )


def agent_state(said: str, *, given_up: bool = False) -> State:
    """The state of an agent.

    Args:
        said: by ``launchctl print``: nothing of an agent that is not loaded.
        given_up: whether its last launcher has.
    """
    rows = [line.strip().partition(" = ")[::2] for line in said.splitlines()]
    values = dict(reversed(rows))  # the first of each name is the agent's own
    if values.get("state") in ("running", "spawn scheduled"):
        return "active"
    code = values.get("last exit code", "").partition(":")[0]
    return "failed" if given_up or (code.isdigit() and int(code)) else "inactive"


def manager_of(host: HostPlan) -> Systemd | Launchd:
    """What starts services on ``host``."""
    return Launchd() if PLATFORMS[host.platform].os == "macos" else Systemd()

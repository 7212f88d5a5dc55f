"""One other machine: a bare Debian in namespaces of its own, with sshd, at the end of a cable.

It is honest in what a cluster over SSH sees: address, ports, host keys, host name, accounts, files,
processes, shared memory, boot id. It shares with this machine: the kernel, its clock and settings,
the number of CPUs, the amount of memory, the time since boot.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.hosts.machines import accounts
from tests.hosts.machines.accounts import Account
from tests.hosts.machines.network import Network, within
from tests.hosts.machines.outside import PATH, outside
from tests.projects import eventually

BOOT = Path(__file__).with_name("boot.sh")

# A login shell in whose view of the files every program is given a library.
_FAST = r"""#!/bin/sh
exec unshare --mount sh -c 'mount --bind /etc/fast /etc/ld.so.preload && exec sh "$@"' sh "$@"
"""


@dataclass(frozen=True)
class Process:
    """A process of a machine: its id in the root namespace, its state there, its command line."""

    pid: int
    state: str
    argv: tuple[str, ...]


@dataclass
class Machine:
    """A machine of a yard, which makes it; see :meth:`tests.hosts.machines.yard.Yard.machine`.

    Attributes:
        name: its host name.
        number: 1, 2, … in its yard.
        network: what it is plugged into.
        folder: its layer and all that belongs to it, in the root namespace.
        system: where its lower ``layers`` lie.
        layers: the lower layers, the upmost first.
        ports: where its sshd listens.
        host_key: the public key of its sshd.
        users: its accounts by name.
        internet: whether it reaches what the root namespace reaches.
        shm: size of its ``/dev/shm``, in tmpfs's words.
    """

    name: str
    number: int
    network: Network
    folder: Path
    system: Path
    layers: tuple[str, ...]
    ports: tuple[int, ...]
    host_key: str
    users: dict[str, Account]
    internet: bool
    shm: str
    _boot: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _init: int = 0

    @property
    def address(self) -> str:
        return self.network.address(self.number)

    @property
    def on(self) -> bool:
        """Whether it has been booted and its power has not been cut."""
        return self._init != 0

    # Power

    def boot(self) -> None:
        """Switch it on; returns when its sshd answers on all ports.

        It dies with the thread that boots it: call this in one that lives as long as the test.
        """
        assert not self.on, f"{self.name} is on"
        with (self.folder / "console").open("ab") as console:
            self._boot = subprocess.Popen(
                # Each dies with its parent: nothing of it outlives the test, however that ends.
                [
                    *("setpriv", "--pdeathsig=KILL", "unshare", "--kill-child=KILL", "--fork"),
                    *("--mount", "--pid", "--uts", "--ipc", "--net", "--", "sh", str(BOOT)),
                    *(self.name, ":".join(self.layers), self.shm, str(self.folder)),
                ],
                cwd=self.system,
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        pid = self.folder / "pid"
        self._wait(pid.exists)
        self._init = int(pid.read_text(encoding="ascii"))
        pid.unlink()
        self.network.plug(self.number, self._init, internet=self.internet)
        self._wait(self.outside("/run/booted").exists)
        for port in self.ports:
            self._wait(functools.partial(answers, self.address, port))

    def _wait(self, condition: Callable[[], bool]) -> None:
        def happened() -> bool:
            assert self._boot is not None
            if self._boot.poll() is not None:
                console = (self.folder / "console").read_text("utf-8", "replace")
                raise AssertionError(f"{self.name} did not boot: {console}")
            return condition()

        eventually(happened, 10, f"{self.name} boots")

    def kill_all(self) -> None:
        """Cut its power: everything in it is dead at once, its files stay. :meth:`boot` is next."""
        if self._boot is None:
            return
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)  # and the kernel kills the rest
        else:
            self._boot.kill()
        self._boot.wait(20)
        self._boot, self._init = None, 0
        self.network.unplug(self.number)

    def sleep(self) -> None:
        """Close the lid: all its processes are stopped, its connections stay as they are."""
        self._everywhere(signal.SIGSTOP, "TtZX")

    def wake(self) -> None:
        """Open the lid."""
        self._everywhere(signal.SIGCONT, "RSDIZX")

    def _everywhere(self, number: signal.Signals, done: str) -> None:
        """Send a signal until every process, new ones too, is in a state of ``done``."""

        def all_done() -> bool:
            left = [p for p in self._all() if p.state not in done]
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
            return not left

        eventually(all_done, 10, f"all processes of {self.name} get {number.name}")

    # What runs there

    def processes(self) -> list[Process]:
        """Its living processes, :command:`init` and sshd among them."""
        return [p for p in self._all() if p.state not in "ZX" and p.argv]  # without: it is ending

    def _all(self) -> list[Process]:
        assert self.on, f"{self.name} is off"
        space, found = os.readlink(f"/proc/{self._init}/ns/pid"), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns" / "pid") == space:
                    state = (folder / "stat").read_text("utf-8", "replace").rpartition(") ")[2][0]
                    argv = (folder / "cmdline").read_bytes().decode(errors="replace")
                    found.append(Process(int(folder.name), state, tuple(argv.split("\0")[:-1])))
        return found

    def command(
        self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command line that runs ``argv`` there, not over ssh, in a clean environment."""
        account = self.users[user]
        variables = accounts.variables(self.internet) | {
            "HOME": account.folder,
            "USER": user,
            "LOGNAME": user,
            "SHELL": account.login_shell,
            **(env or {}),
        }
        enter = ["nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        clean = ["/usr/bin/env", "-i", f"--chdir={account.folder}"]
        become = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [
            *enter,
            "--root",
            "--",
            *clean,
            *(f"{name}={value}" for name, value in variables.items()),
            *become,
            "--pdeathsig=KILL",
            "--",
            *argv,
        ]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: str | bytes = "",
        check: bool = True,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, not over ssh; at its time-out it dies, what it started may not."""
        assert self.on, f"{self.name} is off"
        done = subprocess.run(
            self.command(argv, user=user, env=env),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env={"PATH": PATH},
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == 0 or not check, f"{self.name}: {shlex.join(argv)}: {out}{err}"
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    # Files

    def put(
        self, path: str, content: str | bytes | Path, *, user: str = "root", mode: int = 0o644
    ) -> None:
        """Write a file there as ``user``; a :class:`Path` is a file out here to copy."""
        data = content.read_bytes() if isinstance(content, Path) else content
        write = 'mkdir -p -- "$(dirname -- "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", write, "sh", path, f"{mode:o}"], user=user, stdin=data)

    def read(self, path: str) -> str:
        return self.run(["cat", "--", path]).stdout

    def outside(self, path: str) -> Path:
        """Where the root namespace finds a file or a socket of it."""
        return Path(f"/proc/{self._init}/root{path.replace('/var/run', '/run')}")

    def hosts_line(self, address: str, *names: str) -> None:
        """Let it know ``names`` as ``address`` by its ``/etc/hosts``."""
        line = f"{address} {' '.join(names)}\n"
        self.run(["sh", "-c", "cat >>/etc/hosts"], stdin=line)

    @contextlib.contextmanager
    def fast_clock(self, seconds: int) -> Iterator[None]:
        """For this time all that root starts over ssh has a clock that is ahead.

        The clock of the kernel is everybody's, so libfaketime tells them another time. sshd itself
        must not have it: its sandbox kills what asks for more than sshd does.
        """
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        assert library, "there is no libfaketime: run `make sshd`"
        self.put(f"/usr/local/lib/{library.name}", library)
        self.put("/etc/faketimerc", f"+{seconds}\n")
        self.put("/etc/fast", f"/usr/local/lib/{library.name}\n")
        self.put("/etc/ld.so.preload", "")
        self.put("/usr/local/bin/fast", _FAST, mode=0o755)
        shell = self.users["root"].login_shell
        self.run(["usermod", "--shell", "/usr/local/bin/fast", "root"])
        try:
            yield
        finally:
            self.put("/etc/fast", "")  # a connection that is open keeps its login shell
            self.run(["usermod", "--shell", shell, "root"])

    @contextlib.contextmanager
    def read_only_home(self, user: str = "root") -> Iterator[None]:
        """For this time nobody can write in the home of ``user``."""
        home = self.users[user].folder
        self._mount("--bind", home, home)
        self._mount("-o", "remount,bind,ro", home)
        try:
            yield
        finally:
            self._umount(home)

    @contextlib.contextmanager
    def small_disk(self, path: str, size: str = "4m") -> Iterator[None]:
        """For this time the folder ``path`` is a disk of that size, empty, of the same owner."""
        owner, mode = self.run(["stat", "-c", "%u:%g %a", path]).stdout.split()
        uid, gid = owner.split(":")
        options = f"size={size},uid={uid},gid={gid},mode={mode}"
        self._mount("-t", "tmpfs", "-o", options, "tmpfs", path)
        try:
            yield
        finally:
            self._umount(path)

    def fill_disk(self, path: str) -> str:
        """Leave nothing free on the :meth:`small_disk` at ``path``; returns the file to remove."""
        self.run(["sh", "-c", '[ "$(stat -fc %T "$1")" = tmpfs ]', "sh", path])  # never a real one
        filler = f"{path.rstrip('/')}/.filler"
        self.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False)
        self.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1", "oflag=append"], check=False)
        return filler

    def _mount(self, *arguments: str) -> None:
        self.run(["mount", *arguments])

    def _umount(self, path: str) -> None:
        if self.on:  # a boot has undone it
            self.run(["umount", "--lazy", path], check=False)

    # Network

    def cable(self, up: bool) -> None:
        """Pull its cable, or plug it in again."""
        outside("ip", "link", "set", self.network.cable(self.number), "up" if up else "down")

    def drop(self, direction: Literal["in", "out"], peer: str = "") -> None:
        """Lose all packets that come to it or go from it, or only those from or to ``peer``.

        What is lost on its way out is lost for TCP; to UDP and ping the kernel says so (EPERM).
        A boot ends it, and :meth:`heal`.
        """
        whom = {"in": "-s", "out": "-d"}[direction]
        peers = [whom, peer] if peer else ["!", {"in": "-i", "out": "-o"}[direction], "lo"]
        chain = {"in": "PREROUTING", "out": "OUTPUT"}[direction]
        rule = ["iptables", "-w", "-t", "raw", "-A", chain, *peers, "-j", "DROP"]
        outside(*within(self._init), *rule)

    def heal(self) -> None:
        """End all losses, and plug in the cable."""
        outside(*within(self._init), "iptables", "-w", "-t", "raw", "-F")
        self.cable(True)


def answers(address: str, port: int, timeout: float = 1.0) -> bool:
    """Whether an sshd greets there, within seconds."""
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.settimeout(max(0.05, deadline - time.monotonic()))
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False

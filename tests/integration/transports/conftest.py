"""A real sshd on loopback: its own keys and settings, and users that only it sees."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from saf_env.transports.ssh import SshTransport
from tests.projects import eventually

SSHD = Path("/usr/sbin/sshd")

# By the name of the user: the login shell, its start-up file and what that says.
SHELLS = {
    "plain": ("/bin/sh", "", ""),
    "bashful": ("/bin/bash", ".bashrc", "echo welcome\nprintf 'no newline' >&2\nexport LEAKED=1\n"),
    "fishy": ("/usr/bin/fish", ".config/fish/config.fish", "echo welcome\nset -gx LEAKED 1\n"),
    "zeeshell": ("/usr/bin/zsh", ".zshenv", "printf welcome\nexport LEAKED=1\n"),
    "barred": ("/usr/sbin/nologin", "", ""),
    "leaving": ("/bin/bash", ".bashrc", "echo closed for repairs; exit 0\n"),
}


def parent(pid: int) -> int | None:
    """The parent of a process; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, ppid = text.rpartition(")")[2].split()[:2]
    return None if state == "Z" else int(ppid)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    return parent(pid) is not None


def below(pid: int) -> list[int]:
    """All processes that descend from one, itself not among them."""
    known = {int(p.name): parent(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for one in found:
        found.extend(child for child, its in known.items() if its == one)
    return found[1:]


@dataclass
class Sshd:
    """A server in a folder of its own.

    Attributes:
        home: the folder: keys, settings, users' homes, ``known_hosts``.
        port: where it listens on 127.0.0.1.
    """

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    made: list[SshTransport] = field(default_factory=list)
    sockets: list[Path] = field(default_factory=list)

    @property
    def small(self) -> Path:
        """A disk of 1 MiB that only its users see."""
        return self.home / "small"

    def start(self) -> None:
        """Start it, in a mount namespace where its users are the machine's."""
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it; gone after a boot
        mount = (
            'mount --bind "$1" /etc/passwd && mount -t tmpfs -o size=1m tmpfs "$2" && '
            'exec /usr/sbin/sshd -D -e -f "$3"'
        )
        self.small.mkdir(exist_ok=True)
        files = [str(self.home / name) for name in ("passwd", "small", "sshd_config")]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", mount, "sh", *files], stderr=log
            )
        eventually(self.listens, 10, "sshd listens")

    def listens(self) -> bool:
        """Whether it accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def sessions(self) -> list[int]:
        """The processes of sshd for connections, not those of users' commands."""
        assert self.process
        names = {pid: Path(f"/proc/{pid}/comm") for pid in below(self.process.pid)}
        return [pid for pid, comm in names.items() if comm.exists() and "sshd" in comm.read_text()]

    def stop(self) -> None:
        """End it and its connections, frozen ones too."""
        if self.process is not None:
            for pid in (*below(self.process.pid), self.process.pid):
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def config(self, name: str = "config", **options: str) -> Path:
        """A user's configuration; by default it allows all that must not be."""
        settings = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "IdentityFile": str(self.home / "id"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.home / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "ServerAliveInterval": "0",
            "LogLevel": "QUIET",
            "RequestTTY": "force",
            "RemoteCommand": "echo not this",
            "SessionType": "none",
            "StdinNull": "yes",
            "NoHostAuthenticationForLocalhost": "yes",
            **options,
        }
        file = self.home / name
        lines = [f"  {key} {value}" for key, value in settings.items() if value]
        file.write_text("\n".join(["Host *", *lines, ""]), encoding="utf-8")
        return file

    def transport(self, user: str = "plain", **options: str) -> SshTransport:
        """A transport to it, as ``user``, with ``options`` of the user's configuration."""
        folder = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
        self.sockets.append(folder)
        config = self.config(folder.name, **options)
        made = SshTransport("box", f"{user}@box", folder=folder, environ=ENVIRON, config=config)
        self.made.append(made)
        return made


# Not the machine's own: an agent of the developer's must not let the tests in.
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def keygen(file: Path, kind: str = "ed25519") -> str:
    """A new pair of keys in ``file``; the public one."""
    for old in (file, file.with_name(f"{file.name}.pub")):
        old.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(file)]
    subprocess.run(command, check=True)
    return file.with_name(f"{file.name}.pub").read_text(encoding="utf-8")


def _write_users(home: Path) -> None:
    users = [Path("/etc/passwd").read_text(encoding="utf-8").rstrip("\n")]
    for name, (shell, file, text) in SHELLS.items():
        folder = home / "homes" / name
        folder.mkdir(parents=True)
        if file:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        users.append(f"{name}:*:0:0::{folder}:{shell}")
    (home / "passwd").write_text("\n".join(users) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A short folder that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sshd-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Callable[[], Sshd]]:
    """Makes the server on first use, so that only tests that need it are skipped."""
    made: list[Sshd] = []

    def make() -> Sshd:
        if not made:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                made.append(Sshd(home, free.getsockname()[1]))
            _write_users(home)
            (home / "authorized_keys").write_text(keygen(home / "id"), encoding="utf-8")
            key = keygen(home / "host_key")
            name = f"[127.0.0.1]:{made[0].port}"
            (home / "known_hosts").write_text(f"{name} {key}", encoding="utf-8")
            settings = {
                "Port": str(made[0].port),
                "ListenAddress": "127.0.0.1",
                "HostKey": str(home / "host_key"),
                "AuthorizedKeysFile": str(home / "authorized_keys"),
                "StrictModes": "no",
                "PidFile": "none",
                "UsePAM": "no",
                "PermitRootLogin": "yes",
                "PasswordAuthentication": "no",
                "KbdInteractiveAuthentication": "no",
                "AcceptEnv": "*",
            }
            lines = [f"{key} {value}" for key, value in settings.items()]
            (home / "sshd_config").write_text("\n".join([*lines, ""]), encoding="utf-8")
            made[0].start()
        return made[0]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def sshd(server: Callable[[], Sshd]) -> Iterator[Sshd]:
    """A server that listens."""
    if not SSHD.exists():
        pytest.skip("there is no /usr/sbin/sshd: `make sshd` installs one")
    if os.geteuid() != 0:
        pytest.skip("only root can start sshd with users of its own")
    one = server()
    if one.process is None:
        one.start()
    yield one
    for made in one.made:
        made.close()
    for folder in one.sockets:
        shutil.rmtree(folder, ignore_errors=True)
    one.made.clear()
    one.sockets.clear()

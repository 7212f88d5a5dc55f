"""The test's side of ssh: settings and known hosts for the machines of a yard."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.hosts.machines.machine import Machine, answers
from tests.hosts.machines.outside import outside, ssh_config_installed
from tests.projects import eventually


@dataclass(frozen=True)
class Entry:
    """A name that ``ssh`` knows.

    Attributes:
        machine: what it leads to.
        alias: the name; the machine's by default.
        user: who logs in.
        port: where.
        host_key: what the file of known hosts has: the machine's key, none, or another one.
    """

    machine: Machine
    alias: str = ""
    user: str = "root"
    port: int = 22
    host_key: Literal["right", "missing", "wrong"] = "right"

    def lines(self, key: Path, known_hosts: Path) -> str:
        """Its lines in a file of settings."""
        return (
            f"Host {self.alias or self.machine.name}\n"
            f"    HostName {self.machine.address}\n"
            f"    Port {self.port}\n"
            f"    User {self.user}\n"
            f'    IdentityFile "{key}"\n'
            "    IdentitiesOnly yes\n"
            f'    UserKnownHostsFile "{known_hosts}"\n'
        )

    def known(self, wrong: str) -> str:
        """Its line in a file of known hosts."""
        if self.host_key == "missing":
            return ""
        address = self.machine.address
        place = address if self.port == 22 else f"[{address}]:{self.port}"
        return f"{place} {wrong if self.host_key == 'wrong' else self.machine.host_key}\n"


def make_key(path: Path) -> str:
    """A new pair of keys at ``path`` and ``path``.pub; returns the public one."""
    outside("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "saf-env-test", "-f", str(path))
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii").strip()


def write_config(folder: Path, key: Path, wrong: str, entries: Sequence[Entry]) -> Path:
    """Write ``config`` and ``known_hosts`` in ``folder``; returns ``config``, for ``ssh -F``.

    Each entry has a file of known hosts of its own: two may lead to one machine, and one of them
    may have a wrong key.
    """
    texts = []
    for number, entry in enumerate(entries):
        known = folder / f"known_hosts.{number}"
        known.write_text(entry.known(wrong), encoding="ascii")
        texts.append(entry.lines(key, known))
    config = folder / "config"
    config.write_text("\n".join(texts), encoding="utf-8")
    return config


@contextlib.contextmanager
def sshd_here(folder: Path, address: str, port: int, public_key: str) -> Iterator[str]:
    """For this time an sshd of this machine lets root in by a key; gives its host key.

    Args:
        folder: where its files may lie.
        address: of this machine, where it listens.
        port: there.
        public_key: of who comes.
    """
    keys, settings = folder / "authorized_keys", folder / "sshd_config"
    keys.write_text(f"{public_key}\n", encoding="ascii")
    made = make_key(folder / "own_host_key")
    settings.write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {folder / 'own_host_key'}\n"
        f"AuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\n",
        encoding="utf-8",
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it; gone after a boot
    argv = ["setpriv", "--pdeathsig=KILL", "/usr/sbin/sshd", "-D", "-e", "-f", str(settings)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: answers(address, port), 10, "sshd listens")
            yield made
        finally:
            server.kill()


@contextlib.contextmanager
def installed(config: Path) -> Iterator[Path]:
    """For this time every ssh client of this machine, whoever calls it, has these settings too.

    Inside of another ``installed`` they take the place of that one's.
    """
    place = ssh_config_installed()
    before = place.read_bytes() if place.exists() else None
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(config.read_bytes())
    place.chmod(0o644)
    try:
        yield place
    finally:
        if before is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(before)

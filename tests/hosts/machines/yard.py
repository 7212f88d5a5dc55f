"""A yard of other machines on this one: made for a test, and nothing is left of it.

``with yard() as here: beta = here.machine("beta")`` boots a bare Debian that the root namespace,
where the tests and saf-env run, reaches over ssh; ``make machine`` has made its file system.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts.machines.accounts import Account, write, write_files
from tests.hosts.machines.machine import Machine
from tests.hosts.machines.network import Network, free_subnet
from tests.hosts.machines.outside import FOLDERS, sweep
from tests.hosts.machines.ssh import Entry, make_key, write_config
from tests.projects import CACHE

SYSTEM = CACHE / "machines" / "debian"  # images/machine.sh makes it
_numbers = itertools.count()


def why_not() -> str:
    """Why there can be no yard here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "other machines need Linux, and root"
    if not (SYSTEM / "inputs").is_file():
        return "there is no file system for other machines: run `make machine` (Debian, as root)"
    return ""


@dataclass
class Yard:
    """Machines on one network.

    Attributes:
        folder: all files of it, with the test's ``key`` and ``key.pub``.
        network: its network; the root namespace is at its ``gateway``.
        machines: by name.
    """

    folder: Path
    network: Network
    public_key: str
    wrong_key: str
    machines: dict[str, Machine] = field(default_factory=dict)
    _configs: int = 0

    @property
    def key(self) -> Path:
        """The private key that opens every account."""
        return self.folder / "key"

    def machine(
        self,
        name: str,
        *,
        users: Sequence[Account] = (),
        ports: tuple[int, ...] = (22,),
        python: bool = False,
        internet: bool = False,
        shm: str = "512m",
    ) -> Machine:
        """Make and boot a machine.

        Args:
            name: its host name.
            users: accounts beside root's; an ``Account("root", …)`` changes root's.
            ports: where its sshd listens.
            python: it has Debian's own Python 3, with venv and pip.
            internet: it reaches what the root namespace reaches, and has its name servers,
                certificates, and the variables that lead to its package index.
            shm: size of its ``/dev/shm``.
        """
        assert name not in self.machines
        number = len(self.machines) + 1
        folder = self.folder / name
        for part in (".", "upper", "work", "disk", "root"):
            (folder / part).mkdir()
            (folder / part).chmod(0o755)
        host_key = make_key(folder / "host_key")
        hosts = {"alpha": self.network.gateway}
        hosts[name] = self.network.address(number)
        write_files(folder / "upper", name, hosts, ports, internet)
        for suffix, mode in (("", 0o600), (".pub", 0o644)):
            text = (folder / f"host_key{suffix}").read_text(encoding="ascii")
            write(folder / "upper", f"etc/ssh/ssh_host_ed25519_key{suffix}", text, mode)
        made = Machine(
            name=name,
            number=number,
            network=self.network,
            folder=folder,
            system=SYSTEM,
            layers=("python", "root") if python else ("root",),
            ports=ports,
            host_key=host_key,
            users={"root": Account("root")} | {user.name: user for user in users},
            internet=internet,
            shm=shm,
        )
        self.machines[name] = made
        if internet:
            self.network.let_out(number)
        made.boot()
        scripts = [user.script(self.public_key) for user in made.users.values()]
        made.run(["sh", "-eu", "-s"], stdin="umask 022\n" + "".join(scripts))
        return made

    def ssh_config(self, *entries: Entry) -> Path:
        """A file for ``ssh -F`` or :func:`tests.hosts.machines.ssh.installed`.

        Without entries it has every machine, by its name, as root, on its first port.
        """
        every = [Entry(m, port=m.ports[0]) for m in self.machines.values()]
        self._configs += 1
        folder = self.folder / f"ssh.{self._configs}"
        folder.mkdir()
        return write_config(folder, self.key, self.wrong_key, entries or every)

    def close(self) -> None:
        """Take everything down; a second time there is nothing to do."""
        with contextlib.ExitStack() as stack:  # each of them, whatever fails before it
            if self.folder.exists():
                stack.callback(shutil.rmtree, self.folder)
            stack.callback(self.network.down)
            for machine in self.machines.values():
                stack.callback(machine.kill_all)


@contextlib.contextmanager
def yard() -> Iterator[Yard]:
    """An empty yard. What runs that were killed have left is removed first."""
    assert not why_not(), why_not()
    sweep()
    number = next(_numbers)
    folder = FOLDERS / f"saf-env-yard-{os.getpid()}-{number}"
    folder.mkdir(mode=0o755)
    network = Network(f"saf{os.getpid()}-{number}", free_subnet())
    made = Yard(folder, network, "", "")
    try:
        made.public_key, made.wrong_key = make_key(made.key), make_key(folder / "wrong")
        network.up()
        yield made
    finally:
        made.close()

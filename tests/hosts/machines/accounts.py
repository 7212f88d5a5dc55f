"""Who can log in to a machine, and what is written in its files before its first boot."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BANNER = "*** Welcome. Authorised use only. ***"
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"

# How this machine reaches package indexes; a machine with internet gets the same settings.
_WAYS = (
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("all_proxy", "http_proxy", "https_proxy", "no_proxy"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
)


@dataclass(frozen=True)
class Account:
    """An account of a machine, which the test's key opens.

    Attributes:
        name: its name.
        home: its home folder; ``/home/<name>`` by default. It may have a space in it.
        login_shell: its login shell: ``/usr/bin/fish``, ``/usr/sbin/nologin``, …
        banner: its ``.bashrc`` prints :data:`BANNER`, for commands over ssh too.
    """

    name: str
    home: str = ""
    login_shell: str = "/bin/bash"
    banner: bool = False

    @property
    def folder(self) -> str:
        return self.home or ("/root" if self.name == "root" else f"/home/{self.name}")

    def script(self, public_key: str) -> str:
        """What root of the machine runs to make the account, in sh."""
        home, name = shlex.quote(self.folder), shlex.quote(self.name)
        make = f"useradd --create-home --home-dir {home} --shell {self.login_shell} -p '*' {name}\n"
        if self.name == "root":
            make = (
                f"usermod --shell {self.login_shell} root\n"
                if self.login_shell != "/bin/bash"
                else ""
            )
        lines = [
            f"cd {home}",
            "mkdir -m 700 .ssh",
            f"echo {shlex.quote(public_key)} >.ssh/authorized_keys",
            f"chown -R {name}: .ssh",
        ]
        if self.banner:
            # At its top: Debian's own leaves at once if no terminal is there.
            lines.append(f"sed -i '1i echo \"{BANNER}\"' .bashrc")
        return make + "\n".join(lines) + "\n"


def variables(internet: bool) -> dict[str, str]:
    """What ``/etc/environment`` of a machine holds."""
    found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    if internet:
        found.update({name: os.environ[name] for name in _WAYS if os.environ.get(name)})
        if certificates().is_file():
            found["SSL_CERT_FILE"] = CA_FILE
    return found


def certificates() -> Path:
    """The certificates that this machine trusts."""
    return Path(os.environ.get("SSL_CERT_FILE") or CA_FILE)


def write_files(
    upper: Path, name: str, hosts: Mapping[str, str], ports: tuple[int, ...], internet: bool
) -> None:
    """Write into the layer ``upper`` what makes a machine itself, before its first boot.

    Args:
        upper: the machine's own layer.
        name: its host name.
        hosts: address by name, for ``/etc/hosts``.
        ports: where its sshd listens.
        internet: whether it may know how the root namespace reaches the world.
    """
    listen = "".join(f"Port {port}\n" for port in ports)
    files = {
        "etc/hostname": f"{name}\n",
        "etc/machine-id": f"{os.urandom(16).hex()}\n",
        "etc/hosts": "127.0.0.1 localhost\n"
        + "".join(f"{address} {host}\n" for host, address in hosts.items()),
        "etc/environment": "".join(f'{k}="{v}"\n' for k, v in variables(internet).items()),
        "etc/ssh/sshd_config.d/machine.conf": f"{listen}AddressFamily inet\n"
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "AuthenticationMethods publickey\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nUseDNS no\n",
        "etc/resolv.conf": "",
    }
    if internet:
        files["etc/resolv.conf"] = Path("/etc/resolv.conf").read_text(encoding="utf-8")
        if certificates().is_file():
            files[CA_FILE[1:]] = certificates().read_text(encoding="utf-8")
    for path, text in files.items():
        write(upper, path, text, 0o644)
    write(upper, "usr/sbin/init", Path(__file__).with_name("init.sh").read_text("utf-8"), 0o755)


def write(upper: Path, path: str, text: str, mode: int) -> None:
    """Write one file of the layer ``upper``; folders on its way are as in any Debian."""
    file = upper / path
    file.parent.mkdir(parents=True, exist_ok=True)
    for folder in file.relative_to(upper).parents:
        (upper / folder).chmod(0o755)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)

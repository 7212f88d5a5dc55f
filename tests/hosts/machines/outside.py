"""Commands in the root namespace, where the tests run, and what a killed run left there.

Everything that a yard makes there has the id of its process in its name or comment. So whoever
comes later can tell what belongs to nobody any more.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

FOLDERS = Path("/var/tmp")  # not /tmp: that may be memory
SSH_CONFIGS = Path("/etc/ssh/ssh_config.d")
MARK = "saf-env-test"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FOLDER = re.compile(r"saf-env-yard-(\d+)-\d+")
_BRIDGE = re.compile(r"saf(\d+)-\d+")
_RULE = re.compile(rf"{MARK} saf(\d+)-\d+")
_CONFIG = re.compile(rf"{MARK}-(\d+)\.conf")


def outside(
    *argv: str, data: str = "", check: bool = True, timeout: float = 20
) -> subprocess.CompletedProcess[str]:
    """Run an administrator's command in the root namespace."""
    done = subprocess.run(
        argv,
        input=data,
        env={"PATH": PATH, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0 or not check, f"{shlex.join(argv)}\n{data}{done.stderr}"
    return done


def remove_rules(unwanted: Callable[[int, str], bool]) -> None:
    """Remove the rules of iptables of which ``unwanted(pid, comment)`` is true."""
    table = ""
    for line in outside("iptables-save").stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        if not line.startswith("-A ") or MARK not in line:
            continue
        words = shlex.split(line)
        comment = words[words.index("--comment") + 1] if "--comment" in words else ""
        found = _RULE.fullmatch(comment)
        if found and unwanted(int(found[1]), comment):
            outside("iptables", "-w", "-t", table, "-D", *words[1:], check=False)


def _dead(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def sweep() -> None:
    """Remove what runs left that were killed: bridges, rules, folders, settings of ssh.

    Their machines are gone already: each dies with the process that booted it.
    """
    for link in Path("/sys/class/net").iterdir():
        found = _BRIDGE.fullmatch(link.name)
        if found and _dead(int(found[1])):
            outside("ip", "link", "del", link.name, check=False)
    remove_rules(lambda pid, _: _dead(pid))
    for folder in FOLDERS.iterdir():
        found = _FOLDER.fullmatch(folder.name)
        if found and _dead(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)  # another run may be at it
    for config in SSH_CONFIGS.glob("*") if SSH_CONFIGS.is_dir() else ():
        found = _CONFIG.fullmatch(config.name)
        if found and _dead(int(found[1])):
            config.unlink(missing_ok=True)


def ssh_config_installed() -> Path:
    """Where this process puts settings of ssh that every ssh client of this machine reads."""
    return SSH_CONFIGS / f"{MARK}-{os.getpid()}.conf"

"""The other machines of :mod:`tests.hosts.machines` are as honest as tests need them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from saf_env.uv import find_uv, pinned_version
from tests.hosts.conftest import docker
from tests.hosts.machines.accounts import BANNER, Account
from tests.hosts.machines.machine import Machine, answers
from tests.hosts.machines.outside import FOLDERS, MARK, outside, ssh_config_installed, sweep
from tests.hosts.machines.ssh import Entry, installed
from tests.hosts.machines.yard import Yard, yard
from tests.projects import CACHE, ROOT, eventually

ANNA = Account("anna", home="/home/anna b", login_shell="/usr/bin/fish")
BOB = Account("bob", banner=True)
NOBODY = Account("nina", login_shell="/usr/sbin/nologin")
AFTER_BOOT = ["sh", "sleep", "sshd"]
GREETING = 'exec 3<>"/dev/tcp/$0/$1" && read -r line <&3 && echo "$line"'


@pytest.fixture(scope="module")
def beta(machine_yard: Yard) -> Machine:
    return machine_yard.machine("beta", users=[ANNA, BOB, NOBODY], ports=(22, 2222), shm="300m")


@pytest.fixture(scope="module")
def gamma(machine_yard: Yard) -> Machine:
    return machine_yard.machine("gamma", python=True, internet=True)


def ssh(config: Path | None, alias: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    settings = ["-F", str(config)] if config else []
    return outside("ssh", *settings, *options, alias, command, check=False)


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[None]:
    """For this time the command runs, whatever it does."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def programs(machine: Machine) -> list[str]:
    """The programs that run there."""
    return sorted(Path(p.argv[0].split(":")[0]).name for p in machine.processes())


def greets(machine: Machine, address: str, port: int) -> bool:
    """Whether an sshd answers there when ``machine`` asks; it has no tool for that but bash."""
    asked = ["timeout", "1", "bash", "-c", GREETING, address, str(port)]
    return machine.run(asked, check=False).stdout.startswith("SSH-")


# What a machine is


def test_machines_and_this_one_see_each_other(beta: Machine, gamma: Machine) -> None:
    assert answers(beta.address, 22)
    assert answers(beta.address, 2222)
    assert answers(gamma.address, 22)
    assert not answers(gamma.address, 2222)
    assert greets(beta, gamma.address, 22)
    assert greets(gamma, beta.address, 2222)
    gateway = beta.network.gateway
    with socket.create_server((gateway, 0)) as server:
        server.settimeout(5)
        port = str(server.getsockname()[1])
        beta.run(["bash", "-c", 'echo hello >"/dev/tcp/$0/$1"', gateway, port])
        connection, peer = server.accept()
        with connection:
            assert (connection.recv(5), peer[0]) == (b"hello", beta.address)
    beta.hosts_line(gamma.address, "other", "gamma.example")
    assert greets(beta, "gamma.example", 22)


def test_a_machine_reaches_ports_that_containers_publish_here(beta: Machine) -> None:
    serve = (
        "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 7, Listen => 1);"
        'while ($c = $s->accept) { print $c "SSH-like\\n"; close $c }'
    )
    publish = f"{beta.network.gateway}::7"
    run = ["run", "--rm", "--detach", "--publish", publish, "saf-env-base:local", "perl", "-e"]
    container = docker(*run, serve)
    try:
        port = int(docker("port", container, "7").rpartition(":")[2])
        eventually(lambda: greets(beta, beta.network.gateway, port), 10, "the container answers")
        reach = f"use IO::Socket::INET; print IO::Socket::INET->new('{beta.address}:22')->getline"
        assert docker("exec", container, "perl", "-e", reach).startswith("SSH-")
    finally:
        docker("kill", container)


def test_a_machine_is_bare(beta: Machine) -> None:
    for program in ("python", "python3", "pip", "curl", "wget", "uv", "git", "docker", "make"):
        found = beta.run(["sh", "-c", 'command -v "$0"', program], check=False)
        assert (found.returncode, found.stdout) == (127, "")
    assert "default" not in beta.read("/proc/net/route")
    routes = [line.split()[1] for line in beta.read("/proc/net/route").splitlines()[1:]]
    assert "00000000" not in routes


def test_a_machine_can_run_ray(beta: Machine) -> None:
    """What Ray's wheels and uv need: glibc 2.35, shared memory, the usual devices and files."""
    version = beta.run(["getconf", "GNU_LIBC_VERSION"]).stdout.split()[1]
    assert tuple(map(int, version.split("."))) >= (2, 35)
    beta.put("/home/bob/bin/uv", find_uv(ROOT).binary, user="bob", mode=0o755)
    said = beta.run(["/home/bob/bin/uv", "--version"], user="bob")
    assert said.stdout.split()[:2] == ["uv", pinned_version()]
    size = beta.run(["df", "--output=size", "-B", "1M", "/dev/shm"], user="bob").stdout
    assert size.split()[-1] == "300"
    assert "MemAvailable" in beta.read("/proc/meminfo")
    script = "echo x >/dev/null; echo x >/dev/shm/x; head -c 9 /dev/urandom >/tmp/x; : <(:)"
    beta.run(["bash", "-c", script], user="bob")
    assert "/dev/pts/" in beta.run(["script", "-qc", "tty", "/dev/null"], user="bob").stdout


def test_a_machine_has_its_own_names_processes_and_boot(beta: Machine, gamma: Machine) -> None:
    for file in ("/proc/sys/kernel/hostname", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        here = Path(file).read_text("ascii") if Path(file).exists() else ""
        assert len({here, beta.read(file), gamma.read(file)}) == 3
    assert beta.run(["hostname"]).stdout == "beta\n"
    eventually(lambda: programs(beta) == AFTER_BOOT, 5, "nothing runs but sshd")
    listed = beta.run(["ps", "-eo", "comm="]).stdout.split()
    assert listed == ["init", "sshd", "sleep", "ps"]
    outer = {process.pid for process in beta.processes()}
    assert outer.isdisjoint(process.pid for process in gamma.processes())
    assert all(Path(f"/proc/{pid}").exists() for pid in outer)
    assert not beta.run(["ls", str(ROOT), str(CACHE)], check=False).stdout


def test_processes_without_a_parent_are_collected(beta: Machine) -> None:
    many = "for i in $(seq 50); do (sleep 0.05 &) ; done"
    beta.run(["bash", "-c", many])

    def none_left() -> bool:
        states = beta.run(["ps", "-eo", "stat=,comm="]).stdout
        return "Z" not in states and states.count("sleep") == 1  # init's own

    eventually(none_left, 5, "all are collected")


def test_a_machine_may_have_another_python(beta: Machine, gamma: Machine) -> None:
    packaged = gamma.run(["dpkg-query", "-Wf", "${Version}", "python3"]).stdout
    version = gamma.run(["python3", "-c", "import platform as p; print(p.python_version())"]).stdout
    assert version.strip() == re.match(r"[\d.]+", packaged)[0]  # type: ignore[index]
    gamma.run(["python3", "-c", "import ensurepip, ssl, venv"])
    gamma.run(["python3", "-m", "venv", "--without-pip", "/opt/venv"])
    assert gamma.run(["/opt/venv/bin/python", "--version"]).stdout.split()[1] == version.strip()
    assert gamma.run(["pip", "--version"]).stdout.startswith("pip ")
    assert "python3" not in beta.run(["ls", "/usr/bin"]).stdout


def test_a_machine_with_internet_reaches_what_this_one_reaches(
    gamma: Machine, tmp_path: Path
) -> None:
    gamma.put("/usr/local/bin/uv", find_uv(ROOT).binary, mode=0o755)
    asked = ["uv", "pip", "compile", "--no-cache", "--no-header", "--python=/usr/bin/python3", "-"]
    there = gamma.run(asked, stdin="idna==3.10", check=False, env={"UV_HTTP_RETRIES": "0"})
    here = subprocess.run(
        [str(find_uv(ROOT).binary), *asked[1:-2], f"--python={sys.executable}", "-"],
        input="idna==3.10",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert there.returncode == here.returncode, there.stderr
    assert "idna==3.10" in there.stdout or here.returncode


# ssh


def test_ssh_by_the_settings(machine_yard: Yard, beta: Machine, gamma: Machine) -> None:
    names = machine_yard.ssh_config()
    assert ssh(names, "beta", "id -un; hostname").stdout == "root\nbeta\n"
    assert ssh(names, "gamma", "id -un; hostname").stdout == "root\ngamma\n"
    config = machine_yard.ssh_config(
        Entry(beta, "fish", user="anna", port=2222),
        Entry(beta, "chatty", user="bob"),
        Entry(beta, "closed", user="nina"),
    )
    fish = ssh(config, "fish", "echo $version (pwd) (whoami)")
    assert re.fullmatch(r"\d[\d.]+ /home/anna b anna\n", fish.stdout), fish
    assert ssh(config, "chatty", "echo hello").stdout == f"{BANNER}\nhello\n"
    assert ssh(config, "closed", "echo hello").returncode == 1
    outside("sftp", "-F", str(config), "-b", "-", "fish", data="mkdir 'a b'\n")
    assert beta.run(["stat", "-c", "%U", "/home/anna b/a b"]).stdout == "anna\n"


def test_ssh_with_keys_that_are_missing_or_wrong(machine_yard: Yard, beta: Machine) -> None:
    config = machine_yard.ssh_config(
        Entry(beta, "right"),
        Entry(beta, "unknown", host_key="missing"),
        Entry(beta, "changed", host_key="wrong", port=2222),
    )
    assert ssh(config, "right", "true").returncode == 0
    unknown = ssh(config, "unknown", "true")
    assert (unknown.returncode, "Host key verification failed" in unknown.stderr) == (255, True)
    changed = ssh(config, "changed", "true")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in changed.stderr
    with installed(config):
        assert ssh(None, "right", "hostname").stdout == "beta\n"
    assert not ssh_config_installed().exists()


# What can happen to a machine


def test_power_loss_and_boot(machine_yard: Yard, beta: Machine) -> None:
    boot_id = beta.read("/proc/sys/kernel/random/boot_id")
    beta.put("/home/bob/file", "kept\n", user="bob")
    beta.put("/tmp/file", "not kept\n")
    config = machine_yard.ssh_config(Entry(beta, "beta"))
    with running(["ssh", "-F", str(config), "beta", "sleep 100 & sleep 99"]):
        eventually(lambda: programs(beta).count("sleep") == 3, 5, "the session")
        inside = {process.pid for process in beta.processes()}
        beta.kill_all()
        assert not any(Path(f"/proc/{pid}").exists() for pid in inside)
        assert not beta.on
        assert not answers(beta.address, 22, 0.3)
    beta.kill_all()
    beta.boot()
    assert ssh(config, "beta", "cat /home/bob/file /tmp/file").stdout == "kept\n"
    assert beta.read("/proc/sys/kernel/random/boot_id") != boot_id
    eventually(lambda: programs(beta) == AFTER_BOOT, 5, "nothing of before runs")


def test_sleep_and_wake(beta: Machine) -> None:
    count = "i=0; while sleep 0.01; do i=$((i+1)); echo $i >/tmp/count; done"
    with running(beta.command(["sh", "-c", count], user="bob")):
        eventually(lambda: beta.run(["cat", "/tmp/count"], check=False).stdout, 5, "it counts")
        beta.sleep()
        seen = beta.read("/tmp/count")
        assert not answers(beta.address, 22, 0.2)  # the kernel takes the call, nobody greets
        assert beta.read("/tmp/count") == seen
        beta.wake()
        assert answers(beta.address, 22)
        eventually(lambda: beta.read("/tmp/count").strip() not in ("", seen.strip()), 5, "goes on")


def test_cable(beta: Machine, gamma: Machine) -> None:
    beta.cable(False)
    assert not answers(beta.address, 22, 0.2)
    assert not greets(gamma, beta.address, 22)
    beta.cable(True)
    assert answers(beta.address, 22)
    assert greets(gamma, beta.address, 22)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_loss_in_one_direction(direction: str, beta: Machine, gamma: Machine) -> None:
    def arrives(sender: Machine, receiver: Machine) -> bool:
        """Whether an UDP packet gets there, counted by its kernel."""

        def counted() -> int:
            udp = [x.split() for x in receiver.read("/proc/net/snmp").splitlines() if "Udp:" in x]
            return int(dict(zip(*udp, strict=True))["NoPorts"])

        before = counted()
        send = 'echo x >"/dev/udp/$0/9"'
        sender.run(["bash", "-c", send, receiver.address], check=False)
        with contextlib.suppress(AssertionError):
            return eventually(lambda: counted() > before, 0.3, "it arrives")
        return False

    beta.drop("in" if direction == "in" else "out", gamma.address)
    assert arrives(beta, gamma) is (direction == "in")
    assert arrives(gamma, beta) is (direction == "out")
    assert answers(beta.address, 22)  # only gamma is lost
    beta.drop("in" if direction == "in" else "out")
    assert not answers(beta.address, 22, 0.2)
    beta.heal()
    assert answers(beta.address, 22)
    assert arrives(beta, gamma)
    assert arrives(gamma, beta)


def test_disks(beta: Machine) -> None:
    write = ["sh", "-c", "echo x >file"]
    with beta.read_only_home("anna"):
        done = beta.run(write, user="anna", check=False)
        assert "Read-only file system" in done.stderr
        beta.run(write, user="bob")
    beta.run(write, user="anna")
    beta.run(["mkdir", "small"], user="bob")
    with beta.small_disk("/home/bob/small", "1m"):
        beta.run(["sh", "-c", "echo x >small/file"], user="bob")
        filler = beta.fill_disk("/home/bob/small")
        done = beta.run(["cp", "small/file", "small/other"], user="bob", check=False)
        assert "No space left on device" in done.stderr
        beta.run(["rm", "-f", filler])
        beta.run(["cp", "small/file", "small/other"], user="bob")
    with pytest.raises(AssertionError):
        beta.fill_disk("/home/bob")  # this machine's own disk is behind it


# Nothing is left


def left(pid: int) -> list[str]:
    """What this machine has of the yards of the process ``pid``."""
    links = [link.name for link in Path("/sys/class/net").iterdir()]
    rules = outside("iptables-save").stdout.splitlines()
    mounts = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    folders = [folder.name for folder in FOLDERS.iterdir()]
    marks = (f"saf{pid}-", f"saf-env-yard-{pid}-", f"{MARK}-{pid}")
    configs = [config.name for config in ssh_config_installed().parent.glob("*")]
    everything = itertools.chain(links, rules, mounts, folders, configs)
    return [line for line in everything if any(mark in line for mark in marks)]


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Inside of this, nothing may be added to this machine for good."""
    before, mounts = left(os.getpid()), outside("findmnt", "--list", "-no", "TARGET").stdout
    yield
    assert left(os.getpid()) == before
    after = outside("findmnt", "--list", "-no", "TARGET").stdout
    new = {m for m in set(after.splitlines()) - set(mounts.splitlines()) if "docker" not in m}
    assert not new


def test_nothing_is_left(machine_yard: Yard) -> None:
    pids: set[int] = set()

    def use_and_fail() -> None:
        with yard() as other, installed(other.ssh_config()):
            delta = other.machine("delta", internet=True)
            off = other.machine("epsilon")
            off.kill_all()
            delta.drop("in")
            delta.sleep()
            pids.update(process.pid for process in delta.processes())
            other.close()  # and once more at the end
            raise ZeroDivisionError

    with unchanged(), pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


KILLED = """
import time
from tests.hosts.machines.ssh import installed
from tests.hosts.machines.yard import yard
with yard() as here:
    zeta = here.machine("zeta", internet=True)
    with installed(here.ssh_config()):
        print(*(p.pid for p in zeta.processes()), flush=True)
        time.sleep(60)
"""


def test_the_next_run_removes_what_a_killed_one_left(machine_yard: Yard) -> None:
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = run.stdout.readline().split()
        assert pids
        run.send_signal(signal.SIGKILL)
        run.wait()
    eventually(lambda: not any(Path(f"/proc/{p}").exists() for p in pids), 5, "its machine is dead")
    assert left(run.pid)
    sweep()
    assert left(run.pid) == []
    assert left(os.getpid())  # ours is not touched

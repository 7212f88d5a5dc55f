"""Commands on a host over SSH: results, users' shells, time-outs, many at once."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saf_env.errors import CommandTimeoutError, HostUnreachableError, ToolchainError
from saf_env.transports.ssh import SshTransport
from saf_env.transports.ssh_script import SHELLS_OWN
from tests.projects import eventually

if TYPE_CHECKING:
    from tests.integration.transports.conftest import Sshd

ENV = {"PATH": "/usr/bin:/bin", "GREETING": "grüß\n'gott'"}


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def command_lines() -> str:
    """The arguments of all processes of this machine, which is both sides of the connection."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.mark.parametrize("user", ["plain", "bashful", "fishy", "zeeshell"])
def test_a_command_gets_what_it_is_given_and_nothing_else(sshd: Sshd, user: str) -> None:
    host = sshd.transport(user)
    script = "env -0; printf '%s|' \"$@\"; cat; echo oops >&2"
    argv = ["sh", "-c", script, "sh", "it's", "", "a\nb\n", "$(reboot)", "`x`;\\", "*", "-n", "!!"]

    done = host.run(argv, env=ENV, timeout=20, stdin="in", cwd="/usr")

    *variables, rest = done.stdout.split("\0")
    found = dict(v.split("=", 1) for v in variables)
    assert {k: v for k, v in found.items() if k not in SHELLS_OWN} == ENV
    assert found["PWD"] == "/usr"
    assert rest == "it's||a\nb\n|$(reboot)|`x`;\\|*|-n|!!|in"
    assert (done.stderr, done.code, done.host, done.argv) == ("oops\n", 0, "box", tuple(argv))


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 255])
def test_a_code_is_the_command_s_own(sshd: Sshd, code: int) -> None:
    done = sshd.transport().run(["sh", "-c", f"echo x; exit {code}"], env=ENV, timeout=20)
    assert (done.code, done.stdout, done.stderr) == (code, "x\n", "")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_that_ends_a_command_is_told(sshd: Sshd, sign: signal.Signals) -> None:
    done = sshd.transport().run(["sh", "-c", f"kill -{sign.value} $$"], env=ENV, timeout=20)
    assert (done.code, done.stderr) == (-sign, "")


def test_an_interrupt_of_the_whole_group_is_the_command_s(sshd: Sshd) -> None:
    done = sshd.transport().run(["sh", "-c", "kill -INT 0; sleep 5"], env=ENV, timeout=20)
    assert done.code == -signal.SIGINT


def test_the_user_is_told_what_is_not_there(sshd: Sshd) -> None:
    host = sshd.transport()
    for argv in (["/none/such"], ["none-such"], ["/etc/passwd"], ["/usr"], ["cd"], ["if"]):
        with pytest.raises(ToolchainError, match=f"box: cannot run {argv[0]}: No such program"):
            host.run(argv, env=ENV, timeout=20)
    with pytest.raises(ToolchainError, match="box: cannot run true: No such folder"):
        host.run(["true"], env=ENV, timeout=20, cwd="/none/such")


def test_a_command_without_a_path_or_with_the_shell_s_names(sshd: Sshd) -> None:
    host = sshd.transport()
    assert "PATH=" not in host.run(["env"], env={}, timeout=20).stdout
    odd = {"PATH": "/usr/bin", "p": "1", "m": "2", "i": "3", "IFS": "0123", "CDPATH": "/usr"}
    done = host.run(["env"], env=odd, timeout=20, cwd="/")
    assert {f"{k}={v}" for k, v in odd.items()} <= set(done.stdout.splitlines())


def test_a_locale_that_is_not_there_is_no_message(sshd: Sshd) -> None:
    done = sshd.transport("bashful").run(["true"], env={**ENV, "LC_ALL": "xx_XX"}, timeout=20)
    assert done.stderr == ""


def test_bytes_that_are_no_text_are_replaced(sshd: Sshd) -> None:
    done = sshd.transport().run(["printf", r"a\377b\r\nc"], env=ENV, timeout=20)
    assert done.stdout == "a\ufffdb\nc"


def test_much_goes_both_ways(sshd: Sshd) -> None:
    host = sshd.transport()
    size = 100_000_000
    text = "0123456789abcdef" * (size // 16)

    done = host.run(["tee", "/dev/stderr"], env=ENV, timeout=120, stdin=text)

    assert (done.stdout == text, done.stderr == text) == (True, True)
    unread = host.run(["true"], env=ENV, timeout=60, stdin=text)
    assert unread.ok


def test_stdin_is_empty_unless_given(sshd: Sshd) -> None:
    done = sshd.transport().run(["wc", "-c"], env=ENV, timeout=20)
    assert done.stdout.split() == ["0"]


def test_a_stream_goes_to_our_own(sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    host = sshd.transport("bashful")
    done = host.stream(["sh", "-c", "echo out; echo err >&2; exit 3"], env=ENV, timeout=20)
    assert capfd.readouterr() == ("out\n", "err\n")
    assert (done.code, done.stdout, done.stderr) == (3, "", "")


def test_a_time_out_ends_the_whole_group(sshd: Sshd, tmp_path: Path) -> None:
    host = sshd.transport()
    note = tmp_path / "pids"
    script = f"trap '' INT; sleep 60 & echo $! $$ >{note}; wait"
    began = time.monotonic()

    with pytest.raises(CommandTimeoutError, match="box: sh did not finish within 1 s"):
        host.run(["sh", "-c", script], env=ENV, timeout=1)

    assert time.monotonic() - began < 10
    pids = [int(pid) for pid in note.read_text().split()]
    eventually(lambda: not any(map(alive, pids)), 2, "all of its group are gone")
    assert host.run(["true"], env=ENV, timeout=20).ok, "the connection is still there"


def test_a_command_that_heeds_an_interrupt_can_tidy_up(sshd: Sshd, tmp_path: Path) -> None:
    note = tmp_path / "tidy"
    script = f"trap 'echo bye >{note}; exit' INT; while :; do sleep 0.1; done"
    with pytest.raises(CommandTimeoutError):
        sshd.transport().run(["sh", "-c", script], env=ENV, timeout=1)
    assert note.read_text() == "bye\n"


def test_a_command_runs_beside_us_and_is_stopped_with_its_group(sshd: Sshd) -> None:
    host = sshd.transport("bashful")
    running = host.start(["sh", "-c", "sleep 60 & echo $!; wait"], env=ENV)
    eventually(lambda: "sleep\00060" in command_lines(), 10, "it runs")
    child = int(eventually(running.printed, 10, "it says so while it runs"))
    assert running.poll() is None

    running.stop()
    running.stop()

    done = eventually(running.poll, 5, "it has ended")
    assert (done.code, int(done.stdout)) == (-signal.SIGKILL, child)
    eventually(lambda: not alive(child), 2, "its child is gone")


def test_a_command_beside_us_gives_its_result(sshd: Sshd) -> None:
    host = sshd.transport()
    running = host.start(["cat"], env=ENV, stdin="x" * 1_000_000)
    done = eventually(running.poll, 20, "it has ended")
    assert (done.ok, len(done.stdout)) == (True, 1_000_000)
    missing = host.start(["none-such"], env=ENV)
    with pytest.raises(ToolchainError, match="cannot run none-such"):
        eventually(missing.poll, 20, "it has ended")


def test_many_run_at_once_over_one_connection(sshd: Sshd) -> None:
    host = sshd.transport()

    def one(number: int) -> str:
        argv = ["sh", "-c", f"sleep 0.2; echo {number}"]
        return host.run(argv, env=ENV, timeout=60).stdout

    eventually(lambda: not sshd.sessions(), 10, "those of other tests are gone")
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(one, range(20)))

    assert found == [f"{n}\n" for n in range(20)]
    assert len(sshd.sessions()) == 1


def test_more_than_the_server_allows_get_connections_of_their_own(sshd: Sshd) -> None:
    host = sshd.transport()
    running = [host.start(["sh", "-c", "sleep 2; echo y"], env=ENV) for _ in range(12)]
    for one in running:
        done = eventually(one.poll, 30, "it has ended")
        assert (done.code, done.stdout, done.stderr) == (0, "y\n", "")


def test_values_are_in_no_command_line(sshd: Sshd) -> None:
    secret = "s3cr3t-of-the-index"
    host = sshd.transport("bashful")
    host.run(["true"], env=ENV, timeout=20)
    seen, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(command_lines())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(5):
            argv = ["sleep", "0.1"]
            assert host.run(argv, env={**ENV, "TOKEN": secret}, timeout=20, stdin=secret).ok
    finally:
        done.set()
        watcher.join()

    assert any("sleep\0000.1" in lines for lines in seen)
    assert not any(secret in lines for lines in seen)


@pytest.mark.parametrize(("user", "says"), [("barred", "not available"), ("leaving", "repairs")])
def test_a_login_that_runs_no_commands_is_told(sshd: Sshd, user: str, says: str) -> None:
    with pytest.raises(HostUnreachableError, match=f"runs no commands.*\n.*{says}") as caught:
        sshd.transport(user).run(["true"], env=ENV, timeout=20)
    assert "login shell" in caught.value.hint


def test_a_closed_transport_opens_again(sshd: Sshd) -> None:
    host = sshd.transport()
    host.close()
    host.run(["true"], env=ENV, timeout=20)
    (folder,) = sshd.sockets
    assert len(list(folder.iterdir())) == 1
    host.close()
    eventually(lambda: not list(folder.iterdir()), 5, "the connection is gone")
    assert host.run(["true"], env=ENV, timeout=20).ok


def test_our_options_win_over_the_user_s(sshd: Sshd) -> None:
    host: SshTransport = sshd.transport(ForwardAgent="yes", LocalForward="1234 127.0.0.1:1")
    client = host._client
    call = ["ssh", "-G", *client.options(), "--", "plain@box"]
    shown = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in shown.splitlines())
    expected = {
        "batchmode": "yes",
        "stricthostkeychecking": "true",
        "nohostauthenticationforlocalhost": "no",
        "connecttimeout": "10",
        "serveraliveinterval": "5",
        "serveralivecountmax": "3",
        "controlmaster": "auto",
        "controlpersist": "60",
        "clearallforwardings": "yes",
        "forwardagent": "no",
        "forwardx11": "no",
        "permitlocalcommand": "no",
        "requesttty": "false",
        "loglevel": "ERROR",
    }
    assert {key: found[key] for key in expected} == expected
    assert "remotecommand" not in found
    assert found["controlpath"].startswith(str(sshd.sockets[0]))

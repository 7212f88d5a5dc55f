"""Commands on this machine: results, time-outs, and nothing left of what was ended."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from saf_env.errors import CommandTimeoutError, ToolchainError
from saf_env.transports.local import LocalTransport
from tests.projects import eventually

HERE = LocalTransport("here")
ENV = {"PATH": "/usr/bin:/bin", "GREETING": "grüß"}
CHILD = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True);"


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_a_command_gets_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    done = HERE.run(
        ["sh", "-c", "env; pwd; cat"], env=ENV, timeout=10, stdin="in", cwd=str(tmp_path)
    )

    assert done.ok
    assert "GREETING=grüß" in done.stdout
    assert "HOME=" not in done.stdout
    assert done.stdout.endswith(f"{tmp_path}\nin")
    assert (done.host, done.argv[0]) == ("here", "sh")


def test_a_failure_is_a_result() -> None:
    done = HERE.run(["sh", "-c", "echo no >&2; exit 3"], env=ENV, timeout=10)
    killed = HERE.run(["sh", "-c", "kill -9 $$"], env=ENV, timeout=10)

    assert (done.code, done.tail(), killed.code) == (3, "no", -signal.SIGKILL)


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert HERE.run(["printf", r"a\377b"], env=ENV, timeout=10).stdout == "a\ufffdb"


def test_a_missing_program_is_told() -> None:
    with pytest.raises(ToolchainError, match="here: cannot run /none/such: No such file"):
        HERE.run(["/none/such"], env=ENV, timeout=10)


def test_a_time_out_ends_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"trap '' INT; sleep 60 & echo $! >{note}; wait"
    began = time.monotonic()

    with pytest.raises(CommandTimeoutError, match="did not finish within 0 s"):
        HERE.run(["sh", "-c", script], env=ENV, timeout=0.4)

    assert time.monotonic() - began < 8
    eventually(lambda: not alive(int(note.read_text())), 2, "its child is gone")


def test_a_command_runs_beside_us_and_is_stopped_with_its_group() -> None:
    running = HERE.start([sys.executable, "-c", CHILD + "p.wait()"], env=ENV)
    child = int(eventually(running.printed, 10, "it says so while it runs"))
    assert running.poll() is None

    running.stop()
    running.stop()

    done = eventually(running.poll, 5, "it has ended")
    assert (done.code, int(done.stdout)) == (-signal.SIGKILL, child)
    eventually(lambda: not alive(child), 2, "its child is gone")


def test_a_command_beside_us_gives_its_result() -> None:
    running = HERE.start(["cat"], env=ENV, stdin="x" * 1_000_000)

    done = eventually(running.poll, 10, "it has ended")
    assert (done.ok, len(done.stdout)) == (True, 1_000_000)

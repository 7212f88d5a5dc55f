"""The lock of a cluster on a host: whoever holds it ends, and however, it is free then."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saf_env.cluster.claims import who
from saf_env.cluster.hold import HOLDER, Work, held_here
from saf_env.errors import BusyError
from tests.projects import eventually

ENV = {"PATH": "/usr/bin:/bin"}
DOWN = Work("studio", "down", Path("/project"))
CHILD = """
import sys
from pathlib import Path
from saf_env.cluster.hold import Work, held_here
with held_here(Path(sys.argv[1]), Work("studio", "up", Path()), "alpha"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """A shell that holds the lock of ``folder``, as on another host."""

    def __init__(
        self,
        folder: Path,
        *,
        silence: str = "60",
        shell: tuple[str, ...] = ("sh",),
        python: str = "",
        claim: tuple[str, str, str] = ("", "", ""),
        path: str = ENV["PATH"],
    ) -> None:
        program = shutil.which(shell[0]) or shell[0]
        words = [str(folder), "ab root@beta up", silence, python, *claim]
        self.process = subprocess.Popen(
            [program, *shell[1:], "-c", HOLDER, "sh", *words],
            env={"PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline().strip()

    def tell(self, word: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n")

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def leave(self) -> int:
        """Its standard input is at its end."""
        self.process.communicate(timeout=10)
        return self.process.returncode

    def end(self) -> None:
        """Nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin
        assert self.process.stdout
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.process.wait()

    @property
    def group(self) -> list[int]:
        """The living processes of its session, itself among them."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found


Make = Callable[..., Holder]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "saf-1"


@pytest.fixture
def there(folder: Path) -> Iterator[Make]:
    """Makes holders of ``folder``; all are gone at the end."""
    made: list[Holder] = []

    def make(**options: Any) -> Holder:
        made.append(Holder(folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def free(folder: Path) -> bool:
    try:
        with held_here(folder, DOWN, "beta"):
            return True
    except BusyError:
        return False


def test_of_two_commands_one_wins_and_the_other_says_so(there: Make, folder: Path) -> None:
    argv = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout
            assert first.stdout.readline() == "held\n"
            second = subprocess.run(argv, capture_output=True, text=True, input="", check=False)
            told = there().said
        finally:
            first.kill()
    said = (
        r"BusyError: another saf-env \(up, started \d+ s ago by (.*)\) is working on cluster studio"
    )
    found = re.search(said, second.stderr)
    assert found, second.stderr
    assert found[1] == who()
    assert told.startswith("busy ")
    assert re.search(rf" {first.pid} [0-9a-f]+ {who()} up$", told)
    assert free(folder)


SHELLS = [("sh",), ("dash",), ("bash", "--posix"), ("zsh", "--emulate", "sh")]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_shell_holds_until_its_input_ends(
    there: Make, folder: Path, shell: tuple[str, ...]
) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"there is no {shell[0]}: `make sshd` installs zsh")
    holder = there(shell=shell)
    assert holder.said == "held"
    with (
        pytest.raises(BusyError, match=r"\(up, started \d+ s ago by root@beta\)"),
        held_here(folder, DOWN, "beta"),
    ):
        pass
    other = there(shell=shell)
    assert other.said.endswith(f" {holder.process.pid} ab root@beta up")
    assert other.leave() == 0

    holder.tell()
    holder.tell("a1b2")
    assert holder.answer() == "a1b2\n", "who is asked says that it lives"
    assert holder.leave() == 0
    assert free(folder)
    assert not folder.exists()
    assert eventually(lambda: not holder.group, 2, "nothing of it runs")


def test_a_holder_that_is_killed_frees_it(there: Make, folder: Path) -> None:
    holder = there()
    os.kill(holder.process.pid, signal.SIGKILL)
    holder.process.wait()
    assert eventually(lambda: free(folder), 2, "it is free")  # what watches it closes it first


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_holder_that_is_told_nothing_gives_up(
    there: Make, folder: Path, shell: tuple[str, ...]
) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"there is no {shell[0]}: `make sshd` installs zsh")
    holder = there(silence="1", shell=shell)
    for _ in range(4):
        time.sleep(0.5)
        holder.tell()
    assert not free(folder), "it was told something"
    assert eventually(lambda: free(folder), 5, "it has given up")
    assert eventually(lambda: holder.process.poll() is not None, 2, "it has ended")
    assert eventually(lambda: not holder.group, 2, "nothing of it runs")


@pytest.mark.parametrize("python", [sys.executable, "/none/such"], ids=["python", "perl"])
def test_without_flock_another_program_locks(
    there: Make, folder: Path, tmp_path: Path, python: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cat", "date", "mkdir", "perl", "rm", "rmdir", "sleep", "tail"):
        (tools / name).symlink_to(str(shutil.which(name)))
    holder = there(python=python, path=str(tools))
    assert holder.said == "held"
    assert there(python=python, path=str(tools)).said.startswith("busy ")
    assert there().said.startswith("busy ")
    assert not free(folder)
    holder.leave()
    assert free(folder)


def test_without_any_program_for_it_that_is_said(there: Make, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "mkdir").symlink_to(str(shutil.which("mkdir")))
    assert there(path=str(tools)).said.startswith("unable there is no program for it")


def test_somebody_elses_folder_is_not_entered(there: Make, folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    assert there().said.startswith(f"unable {folder} is not a folder of this user")


def test_the_folder_on_a_host_is_one_clusters(there: Make, folder: Path, tmp_path: Path) -> None:
    note = tmp_path / "a home" / ".saf" / "owner"
    ours = (str(note), "saf-1", "root@alpha:/my project")

    def said(claim: tuple[str, str, str]) -> str:
        holder = there(claim=claim)
        holder.leave()
        assert not folder.exists()
        return holder.said

    assert said(ours) == "held"
    assert note.read_text() == "saf-1 root@alpha:/my project\n"
    assert said((str(note), "saf-2", "root@alpha:/other")) == "taken saf-1 root@alpha:/my project"
    assert said((str(note), "saf-1", "root@gamma:/copy")) == "held", "the same, from elsewhere"
    assert said((str(note), "saf-3", "root@alpha:/my project")) == "held", "it has moved"
    assert note.read_text() == "saf-3 root@alpha:/my project\n"
    assert said(("", "saf-2", "root@alpha:/other")) == "held", "what only stops claims nothing"


def test_a_home_that_cannot_be_written_to_is_told_by_the_look_at_the_host(there: Make) -> None:
    assert there(claim=("/proc/none/.saf/owner", "saf-1", "o")).said == "held"

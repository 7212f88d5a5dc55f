"""What is sent over SSH, run by real shells: a word is a word, whatever is in it."""

from __future__ import annotations

import os
import shutil
import string
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saf_env.transports.ssh_script import COMMAND, SHELLS_OWN, Frame, Script, run_script

PRINT = "printf '%s\\0' \"$@\"; env -0"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NASTY = st.text(st.sampled_from("'\"\\$`!\n\r\t #~*?[]{}()<>|&;=%^-\x01\x7f\x81Á"), max_size=30)
WORD = TEXT | NASTY
NAME = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8).filter(
    lambda name: name not in SHELLS_OWN
)
ARGV0 = ("sh", "-c", PRINT, "sh")


def framed(script: Script, out: bytes, err: bytes) -> tuple[bytes, bytes, str | None]:
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    frames = [Frame(script.nonce, part.append) for part in parts]
    for frame, data in zip(frames, (out, err), strict=True):
        frame.take(data)
        frame.close()
    return b"".join(parts[0]), b"".join(parts[1]), frames[1].end


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words=st.lists(WORD, max_size=6), env=st.dictionaries(NAME, WORD, max_size=5))
def test_words_and_values_arrive_as_they_are(
    shell: str, words: list[str], env: dict[str, str]
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}: `make sshd` installs zsh")
    given_env = {**env, "PATH": "/usr/bin:/bin"}
    words = ["first", *words]
    script = run_script([*ARGV0, *words], given_env, None)
    # As COMMAND, with the shell in the place of sh: on other systems sh is one of these.
    arguments = {"zsh": ["--emulate", "sh"], "bash": ["--posix"]}.get(shell, [])
    inner = COMMAND.split("'")[1]
    done = subprocess.run(
        [shutil.which(shell) or shell, *arguments, "-c", inner],
        input=script.line + b"rest",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    out, err, end = framed(script, done.stdout, done.stderr)
    *found, last = out.decode("utf-8").split("\0")
    assert (found[: len(words)], last, err, end) == (words, "", b"", "0")
    values = dict(line.split("=", 1) for line in found[len(words) :])
    assert {k: v for k, v in values.items() if k not in SHELLS_OWN} == given_env


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish"])
def test_every_login_shell_takes_the_command(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}: `make sshd` installs zsh and fish")
    script = run_script(["cat"], {"PATH": "/usr/bin:/bin"}, "/")
    done = subprocess.run(
        [shell, "-c", COMMAND],
        input=script.line + b"the rest",
        env={**os.environ, "LEAKED": "1"},
        capture_output=True,
        check=True,
    )
    assert framed(script, done.stdout, done.stderr) == (b"the rest", b"", "0")

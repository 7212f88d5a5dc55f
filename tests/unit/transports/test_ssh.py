"""How ssh is called, what is sent, how answers are read, and what ssh's messages are taken for."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.errors import HostKeyError, HostUnreachableError, UsageError
from saf_env.transports.ssh import SshTransport
from saf_env.transports.ssh_client import FORCED, SOCKET_LIMIT, SOCKET_NAME, SshClient
from saf_env.transports.ssh_failures import Target, lost, no_shell, unknown_key, unreachable
from saf_env.transports.ssh_script import (
    COMMAND,
    Frame,
    exit_code,
    kill_script,
    put_script,
    quote,
    run_script,
)

BETA = Target("beta", "me@studio-b", ("-p", "2222"))
NONCE = "0" * 32
BEGIN = f"saf-env:{NONCE}:begin:4711\n".encode()
END = f"saf-env:{NONCE}:end:3\n".encode()


def client(folder: str = "/run/s", target: Target = BETA) -> SshClient:
    return SshClient(target, Path(folder), {})


# ssh's call


def test_our_options_come_before_any_other() -> None:
    options = client().options()
    for option in FORCED:
        assert f"-o{option}" in options
    assert {"-T", "-a", "-x"} <= set(options)
    assert "-oLogLevel=ERROR" in options
    assert options[-2:] == ["-p", "2222"]
    assert "-oLogLevel=INFO" in client().options("INFO")


def test_sockets_have_room_in_the_folder() -> None:
    longest = "/" + "s" * (SOCKET_LIMIT - SOCKET_NAME - 1)
    assert f'-oControlPath="{longest}/%C"' in client(longest).options()
    with pytest.raises(UsageError, match="46 bytes of at most 45"):
        client(longest + "s")
    assert '-oControlPath="/a b/100%%/%C"' in client("/a b/100%").options()


@pytest.mark.parametrize("folder", ["s", "~/s", '/a"b', "/a\\b", "/$HOME", "/${X}", "/a\nb"])
def test_folders_that_ssh_would_misread(folder: str) -> None:
    with pytest.raises(UsageError, match="no sockets in"):
        client(folder)


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=x", "a b", "a\nb", "a\0", " a"])
def test_destinations_that_are_none(destination: str) -> None:
    with pytest.raises(UsageError, match="nothing that ssh can connect to"):
        SshTransport("beta", destination, folder=Path("/run/s"), environ={})


# What is sent


def test_the_command_is_one_that_every_shell_takes() -> None:
    assert COMMAND.isascii()
    assert not set(COMMAND) & set("\\!\n")
    assert COMMAND.count("'") == 2
    assert shlex.split(COMMAND)[:4] == ["exec", "env", "-i", "PATH=/usr/bin:/bin"]


@given(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])))
def test_a_quoted_word_is_one_word(word: str) -> None:
    assert shlex.split(quote(word)) == [word]


def test_a_quoted_word_stays_on_its_line() -> None:
    assert "\n" not in quote("a\nb'\n\n")
    assert shlex.split(quote("a\nb")) == ["a$saf_env_newlineb"]
    with pytest.raises(ValueError, match="zero byte"):
        quote("a\0b")


def test_a_script_is_one_line_with_a_nonce_of_its_own() -> None:
    env = {"TOKEN": "a\nb", "PATH": "/x:", "PWD": "/not/this", "SHLVL": "7"}
    one, other = (run_script(["prog", "a\nb"], env, "-dir") for _ in range(2))
    assert one.nonce != other.nonce
    assert len(one.nonce) == 32
    text = one.line.decode()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "cd -- './-dir' ||" in text
    assert "for p in '/x/prog' './prog'; do" in text
    assert "export TOKEN='a'\"$saf_env_newline\"'b'" in text
    assert "/not/this" not in text
    assert "unset PATH" not in text
    assert "unset PATH" in run_script(["prog"], {}, None).line.decode()


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a=b", "a b", "é", "UID", "a;reboot", "a\n"])
def test_variables_that_no_shell_hands_on(name: str) -> None:
    with pytest.raises(ValueError, match="cannot hand on the variable"):
        run_script(["x"], {name: "1"}, None)


@pytest.mark.parametrize("argv", [[], [""], ["-x"]])
def test_commands_that_are_none(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="not a command"):
        run_script(argv, {}, None)


def test_a_file_is_written_beside_its_place() -> None:
    text = put_script("-a/it's", 5, 0o755).line.decode()
    beside = quote("./-a/.it's.saf-env-new")
    target = quote("./-a/it's")
    assert f"set -- {target} './-a' {beside} '5' '755';" in text
    with pytest.raises(ValueError, match="not a file"):
        put_script("/a/", 0, 0o600)


def test_a_group_is_asked_or_killed() -> None:
    assert b"kill -s INT" in kill_script(4711, ask=True).line
    assert b"kill -s INT" not in kill_script(4711, ask=False).line
    assert b"set -- '4711'" in kill_script(4711, ask=False).line


# What comes back


@given(
    banner=st.binary(max_size=40).filter(lambda b: b"saf-env" not in b),
    body=st.binary(max_size=80) | st.just(END[:20]) | st.just(BEGIN + END[:-9]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_marks_are_found_however_a_stream_is_cut(
    banner: bytes, body: bytes, cuts: list[int]
) -> None:
    whole = banner + BEGIN + body + END + b"ssh says goodbye"
    parts: list[bytes] = []
    frame = Frame(NONCE, parts.append)
    edges = [0, *sorted(cuts), len(whole)]
    for start, stop in itertools.pairwise(edges):
        frame.take(whole[start:stop])
    frame.close()
    assert (b"".join(parts), frame.before, frame.group, frame.end) == (body, banner, 4711, "3")
    assert frame.tail == body


def test_a_stream_without_an_end_is_handed_on_to_its_end() -> None:
    parts: list[bytes] = []
    frame = Frame(NONCE, parts.append)
    frame.take(BEGIN + b"half" + END[:10])
    assert b"".join(parts) == b"half"
    frame.close()
    assert (b"".join(parts), frame.end) == (b"half" + END[:10], None)


def test_a_command_that_never_began() -> None:
    parts: list[bytes] = []
    frame = Frame(NONCE, parts.append)
    frame.take(b"x" * 9000)
    frame.take(b"This account is currently not available.\n")
    frame.close()
    assert (parts, frame.group, frame.end) == ([], None, None)
    assert frame.before.endswith(b"available.\n")
    assert len(frame.before) == Frame.KEPT


@pytest.mark.parametrize(
    ("shell", "code"),
    [("0", 0), ("1", 1), ("127", 127), ("128", 128), ("130", -2), ("137", -9), ("255", 255)],
)
def test_codes_of_a_shell(shell: str, code: int) -> None:
    assert exit_code(shell) == code


# What ssh says: OpenSSH 8.1 to 10 on macOS and Linux, tailscaled 1.36 to 1.9x


@pytest.mark.parametrize(
    ("said", "what", "hint"),
    [
        (
            "ssh: Could not resolve hostname studio-b: Name or service not known",
            "name does not resolve",
            "~/.ssh/config",
        ),
        (
            "ssh: Could not resolve hostname studio-b: "
            "nodename nor servname provided, or not known",
            "name does not resolve",
            "tailnet",
        ),
        (
            "ssh: Could not resolve hostname studio-b: Temporary failure in name resolution",
            "name does not resolve",
            "network",
        ),
        (
            "ssh: connect to host studio-b port 22: Connection refused",
            "nothing accepts SSH",
            "Remote Login",
        ),
        (
            "ssh: connect to host 100.64.0.2 port 22: Connection timed out",
            "does not answer",
            "awake",
        ),
        (
            "ssh: connect to host 100.64.0.2 port 22: Operation timed out",
            "does not answer",
            "awake",
        ),
        ("ssh: connect to host studio-b port 22: No route to host", "does not answer", "firewall"),
        ("ssh: connect to host studio-b port 22: Host is down", "does not answer", "awake"),
        ("Connection timed out during banner exchange", "does not answer", "awake"),
        ("Timeout, server studio-b not responding.", "does not answer", "awake"),
        (
            "me@studio-b: Permission denied (publickey,password,keyboard-interactive).",
            "none of the keys",
            "`ssh -p 2222 me@studio-b` must work",
        ),
        (
            "Received disconnect from 100.64.0.2 port 22:2: Too many authentication failures\n"
            "Disconnected from 100.64.0.2 port 22",
            "none of the keys",
            "ssh-add",
        ),
        (
            "kex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by 100.64.0.2 port 22",
            "closed the connection",
            "try again",
        ),
        (
            "kex_exchange_identification: read: Connection reset by peer",
            "closed the connection",
            "log",
        ),
        (
            "Unable to negotiate with 100.64.0.2 port 22: no matching host key type found. "
            "Their offer: ssh-rsa,ssh-dss",
            "no method in common",
            "up to date",
        ),
        ("Bad owner or permissions on /Users/me/.ssh/config", "refuses its configuration", "mend"),
        (
            "/home/me/.ssh/config: line 2: Bad configuration option: usekeychain\n"
            "/home/me/.ssh/config: terminating, 1 bad configuration options",
            "refuses its configuration",
            "mend",
        ),
        (
            "# Tailscale SSH requires an additional check.\n"
            "# To authenticate, visit: https://login.tailscale.com/a/0123456789ab\n"
            "timed out after 30 s",
            "https://login.tailscale.com/a/0123456789ab",
            "visit the address",
        ),
        (
            "tailscale: tailnet policy does not permit you to SSH to this node\n"
            "Connection closed by 100.64.0.2 port 22",
            "lets nobody from here in",
            "policy",
        ),
        ("something new", "ssh cannot connect", "must work without a question"),
        ("", "ssh cannot connect", "must work without a question"),
    ],
)
def test_messages_of_ssh(said: str, what: str, hint: str) -> None:
    error = unreachable(BETA, said)
    assert error.message.startswith("beta: ")
    assert what in error.message
    assert hint in error.hint
    assert error.exit_code == 5
    assert not isinstance(error, HostKeyError)
    assert said.splitlines()[-1:] == error.message.splitlines()[1:][-1:]


UNKNOWN = (
    "No ED25519 host key is known for [studio-b]:2222 and you have requested strict checking.\n"
    "Host key verification failed.\n"
)
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ECDSA key sent by the remote host is
SHA256:bmV2ZXIgYSByZWFsIGtleSwganVzdCBhIHRlc3QuLi4.
Please contact your system administrator.
Add correct host key in /Users/me/.ssh/known_hosts to get rid of this message.
Offending RSA key in /Users/me/.ssh/known_hosts:12
Host key for [studio-b]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""


def test_an_unknown_host_key() -> None:
    error = unreachable(BETA, UNKNOWN)
    assert isinstance(error, HostKeyError)
    assert (error.changed, error.fingerprint, error.exit_code) == (False, "", 5)
    shown = unknown_key(BETA, "ED25519", "SHA256:abc")
    assert "it shows an ED25519 key, SHA256:abc" in shown.message
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in shown.hint
    assert "`ssh -o StrictHostKeyChecking=ask -p 2222 me@studio-b true`" in shown.hint


def test_a_changed_host_key() -> None:
    error = unreachable(BETA, CHANGED)
    assert isinstance(error, HostKeyError)
    assert error.changed
    assert error.fingerprint == "SHA256:bmV2ZXIgYSByZWFsIGtleSwganVzdCBhIHRlc3QuLi4"
    assert "line 12 of /Users/me/.ssh/known_hosts" in error.message
    assert error.hint.startswith("do not go on before the owner of the host has confirmed")
    assert "ssh-keygen -R '[studio-b]:2222' -f /Users/me/.ssh/known_hosts" in error.hint


def test_a_revoked_host_key() -> None:
    error = unreachable(BETA, "@       WARNING: REVOKED HOST KEY DETECTED!               @\n")
    assert isinstance(error, HostKeyError)
    assert error.changed
    assert "ssh-keygen -R" not in error.hint


def test_other_ends_of_a_connection() -> None:
    barred = no_shell(BETA, "This account is currently not available.")
    cut = lost(BETA, "uv", "client_loop: send disconnect: Broken pipe\n")
    assert isinstance(barred, HostUnreachableError)
    assert "runs no commands for this user" in barred.message
    assert cut.message == (
        "beta: the connection was lost while uv ran there:\n"
        "client_loop: send disconnect: Broken pipe"
    )

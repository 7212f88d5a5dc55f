"""What ssh's messages mean to the user: OpenSSH's on Linux and macOS, and Tailscale's."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from saf_env.errors import HostKeyError, HostUnreachableError

# Expressions in the messages, what happened, what to do. The first that occurs decides.
_TABLE = (
    (
        r"Tailscale SSH requires an additional check",
        "its tailnet asks for a check in the browser before it lets this user in",
        "visit the address above, then run the command again",
    ),
    (
        r"tailnet policy does not permit",
        "the policy of its tailnet lets nobody from here in by SSH",
        "allow it in the section `ssh` of the tailnet's policy, or let the host's own SSH server "
        "answer",
    ),
    (
        r"Bad owner or permissions on|Bad configuration option|bad configuration options?\b|"
        r"no argument after keyword|[Mm]issing argument|extra arguments at end",
        "ssh refuses its configuration",
        "mend what ssh names above; `ssh -G {target}` shows whether it is well",
    ),
    (
        r"Permission denied \(|Too many authentication failures|no matching authentication",
        "it lets this user in with none of the keys that ssh offers",
        "`{command}` must work without a question: put a public key of yours into "
        "~/.ssh/authorized_keys there, and a key with a passphrase into the agent (ssh-add)",
    ),
    (
        r"Could not resolve|[Nn]ame or service not known|nodename nor servname|"
        r"Temporary failure in name resolution|No address associated",
        "its name does not resolve",
        "compare `ssh` of the host in the cluster file with your ~/.ssh/config, and see that the "
        "network (or the tailnet) is up",
    ),
    (
        r"Connection refused",
        "nothing accepts SSH connections there",
        "start its SSH server (on a Mac: Remote Login in the settings of Sharing), and compare the "
        "port",
    ),
    (
        r"timed out|not responding|No route to host|Network is unreachable|Host is down|"
        r"Operation timed out",
        "it does not answer",
        "see that it is on, awake, and in the same network or tailnet, and that no firewall is "
        "between",
    ),
    (
        r"Unable to negotiate|no matching \S+ (method|type|key|found)|incorrect signature",
        "its SSH server and this ssh have no method in common",
        "bring the older of the two up to date",
    ),
    (
        r"kex_exchange_identification|ssh_exchange_identification|banner exchange|"
        r"Connection (closed|reset) by|Connection reset|Broken pipe|Bad packet|"
        r"Control master terminated|closed by remote host",
        "it closed the connection",
        "its SSH server may be overloaded or block this machine: its log says why; try again",
    ),
)

_OTHER = ("", "ssh cannot connect to it", "`{command} true` must work without a question")

_CHANGED = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed")
_REVOKED = re.compile(
    r"REVOKED HOST KEY|host key \S+ was revoked|marked as revoked|is revoked by file"
)
_UNKNOWN = re.compile(
    r"No (\S+) host key is known for (\S+) and you have requested strict checking"
)
_VERIFICATION = re.compile(r"Host key verification failed")
_FINGERPRINT = re.compile(
    r"fingerprint for the (\S+) key sent by the remote host is\s+(SHA256:\S+?)\.?\s"
)
_OFFENDING = re.compile(r"Offending \S+ key in (.+):(\d+)\s")
_NAMED = re.compile(r"Host key for (\S+) has changed")


@dataclass(frozen=True)
class Target:
    """A host, for messages.

    Attributes:
        host: its name in the cluster file.
        destination: what ssh is called with.
        options: what the user's own call of ssh needs to get there: port, configuration.
    """

    host: str
    destination: str
    options: tuple[str, ...] = ()

    def command(self, *extra: str) -> str:
        """The user's own command line to get there, to be pasted into a shell."""
        return shlex.join(["ssh", *extra, *self.options, self.destination])


def unreachable(target: Target, said: str) -> HostUnreachableError:
    """The error for a connection that was not made.

    Args:
        target: the host.
        said: what ssh printed.
    """
    key = _host_key(target, said)
    if key is not None:
        return key
    meant = next((row for row in _TABLE if re.search(row[0], said)), _OTHER)
    _, what, hint = meant
    hint = hint.format(command=target.command(), target=target.destination)
    return HostUnreachableError(
        f"{target.host}: {what} ({target.destination}){_quoted(said)}", hint=hint
    )


def no_shell(target: Target, said: str) -> HostUnreachableError:
    """The error for a login that works and runs no commands."""
    return HostUnreachableError(
        f"{target.host}: it lets {target.destination} in, but runs no commands for this user"
        f"{_quoted(said)}",
        hint="give the user a login shell there (sh, bash, zsh, fish) whose start-up files neither "
        "exit nor read their input, and no forced command in authorized_keys",
    )


def lost(target: Target, program: str, said: str) -> HostUnreachableError:
    """The error for a connection that ended before the command did."""
    return HostUnreachableError(
        f"{target.host}: the connection was lost while {program} ran there{_quoted(said)}",
        hint="see that the host is on and its network is up, then run the command again",
    )


def unknown_kind(said: str) -> str | None:
    """The type of the host key, such as ``ED25519``, that ssh refused because it knows none."""
    found = _UNKNOWN.search(said)
    return found[1] if found else None


def unknown_key(target: Target, kind: str, fingerprint: str) -> HostKeyError:
    """The error for a host that was never connected to.

    Args:
        target: the host.
        kind: type of its key, as ssh names it.
        fingerprint: as the host showed it just now; empty when it could not be asked (a jump host).
    """
    shown = f"; it shows an {kind} key, {fingerprint}" if fingerprint else f" (type {kind})"
    compare = fingerprint or "what it asks you about"
    trust = target.command("-o", "StrictHostKeyChecking=ask")
    return HostKeyError(
        f"{target.host}: its host key is not known to this machine{shown}",
        changed=False,
        fingerprint=fingerprint,
        hint=f"run `{_own_key(kind)}` on the host itself and compare it with {compare}; if they "
        f"are the same, trust it with `{trust} true`",
    )


def _host_key(target: Target, said: str) -> HostKeyError | None:
    if _CHANGED.search(said):
        return _changed(target, said)
    if _REVOKED.search(said):
        return HostKeyError(
            f"{target.host}: its host key is one that was revoked{_quoted(said)}",
            changed=True,
            hint="do not connect; ask the owner of the host for its new key",
        )
    kind = unknown_kind(said)
    if kind is None and not _VERIFICATION.search(said):
        return None
    return unknown_key(target, kind or "ed25519", "")


def _changed(target: Target, said: str) -> HostKeyError:
    found, known, named = (p.search(said) for p in (_FINGERPRINT, _OFFENDING, _NAMED))
    kind, fingerprint = (found[1], found[2]) if found else ("ed25519", "")
    shown = f"; it now shows an {kind} key, {fingerprint}" if found else ""
    place = f" (the known one is line {known[2]} of {known[1]})" if known else ""
    name = named[1] if named else target.destination
    file = ["-f", known[1]] if known else []
    remove = shlex.join(["ssh-keygen", "-R", name, *file])
    return HostKeyError(
        f"{target.host}: its host key has changed{shown}{place}: it was set up anew, or another "
        "machine answers in its place",
        changed=True,
        fingerprint=fingerprint,
        hint="do not go on before the owner of the host has confirmed the new key: "
        f"`{_own_key(kind)}` on the host itself shows it. Only then forget the old one with "
        f"`{remove}` and trust the new one with "
        f"`{target.command('-o', 'StrictHostKeyChecking=ask')} true`",
    )


def _own_key(kind: str) -> str:
    """What shows the fingerprint of a host's key, on that host."""
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{kind.lower().removesuffix('-cert')}_key.pub"


def _quoted(said: str) -> str:
    """The end of what was printed, below the message."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()][-6:]
    return ":\n" + "\n".join(lines) if lines else ""

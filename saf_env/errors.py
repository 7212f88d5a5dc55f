"""Every error that a user can meet, each with its exit code.

An error says what happened (``message``), where (``node``, when one node is meant) and what to do
next (``hint``). ``saf_env.cli`` catches them in one place. An exception outside this tree is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


class SafEnvError(Exception):
    """Base of all expected failures; ``exit_code`` 1 is kept for bugs and never raised as such."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", node: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.node = node


class UsageError(SafEnvError):
    """The command line makes no sense: an unknown node, a file that cannot be written."""

    exit_code = 2


class ClusterFileError(SafEnvError):
    """The cluster file is wrong. ``mistakes`` holds all of them, not only the first."""

    exit_code = 2

    def __init__(self, message: str, *, mistakes: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.mistakes = tuple(mistakes)


class LockError(SafEnvError):
    """The lock is missing, stale, damaged, or cannot be made."""

    exit_code = 3


class ToolchainError(SafEnvError):
    """An interpreter, uv or an environment cannot be had as the lock says."""

    exit_code = 3


class NoProgramError(ToolchainError):
    """A host does not have the program that was to run there."""


class UvTimeoutError(ToolchainError):
    """uv took longer than it may: as a rule, a download that has stalled."""


class PreflightError(SafEnvError):
    """A node is not what the lock says, so it may not join."""

    exit_code = 4


class HostUnreachableError(SafEnvError):
    """A host does not answer, does not let us in, or the connection was lost."""

    exit_code = 5


class HostKeyError(HostUnreachableError):
    """A host's key is not known to this machine, or is another than the known one.

    Attributes:
        changed: whether another key was known; else none was.
        fingerprint: the key's, ``SHA256:…``, as the host showed it; empty when it could not be had.
    """

    def __init__(
        self, message: str, *, changed: bool, fingerprint: str = "", hint: str = "", node: str = ""
    ) -> None:
        super().__init__(message, hint=hint, node=node)
        self.changed = changed
        self.fingerprint = fingerprint


class BringUpError(SafEnvError):
    """A node did not start, died while starting, or is not what was planned once started."""

    exit_code = 6


class CommandTimeoutError(BringUpError):
    """A command on a host took longer than it may."""


class WorkloadError(SafEnvError):
    """A workload was wrong, or did not run."""

    exit_code = 7


class BusyError(SafEnvError):
    """Another saf-env command holds the lock of this cluster or environment."""

    exit_code = 6

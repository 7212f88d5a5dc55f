"""What uv's failures mean to the user."""

from __future__ import annotations

from saf_env.errors import ToolchainError
from saf_env.transports.base import CommandResult

# Words in uv's messages (0.13), each with what to do. The first that occurs decides.
OFFLINE = (
    "the package index or the release server cannot be reached and the cache does not hold "
    "everything: connect the machine, set a proxy or index as for uv, or set SAF_ENV_CACHE to "
    "a cache that holds it"
)

_HINTS = (
    (
        ("No space left on device", "Disk quota exceeded"),
        "free some GB on the disk of the project folder, then run the command again",
    ),
    (
        ("Hash mismatch", "hash mismatch", "doesn't match the expected"),
        "the index serves another file than the one that was locked: do not use it; "
        "`saf-env lock` makes a new lock once you know why",
    ),
    (
        ("no usable wheels", "no wheels with a matching", "only-binary"),
        "the index has no wheel of it for this platform; lock another version",
    ),
    (
        (
            "dns error",
            "error sending request",
            "Failed to fetch",
            "Network connectivity is disabled",
            "network was disabled",
            "operation timed out",
            "Request failed",
            "Failed to download",
        ),
        OFFLINE,
    ),
)


def failed(what: str, result: CommandResult) -> ToolchainError:
    """The error for a uv command that failed.

    Args:
        what: what was to be done, as in "cannot ``what``".
        result: the finished command; the end of its output becomes part of the message.
    """
    hint = _hint(result.stderr + result.stdout)
    return ToolchainError(
        f"{result.host}: cannot {what}:\n{result.tail()}",
        hint=hint or "what uv said above is the reason; run the command again once it is resolved",
    )


def reaches_nothing(said: str) -> bool:
    """Whether a uv command that said this has failed for the want of a network."""
    return _hint(said) == OFFLINE


def _hint(said: str) -> str:
    return next((hint for words, hint in _HINTS if any(word in said for word in words)), "")

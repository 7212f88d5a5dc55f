"""The way to a host that this machine does not ask: what runs there is what Ray tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from saf_env.errors import HostUnreachableError


class UnaskedTransport:
    """Refuses every command. A :class:`saf_env.transports.base.FileTransport`.

    Args:
        host: its name.
        controller: the host that the cluster is run from.
    """

    def __init__(self, host: str, controller: str) -> None:
        self.host = host
        self._controller = controller

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str | Iterable[bytes] = "",
        cwd: str | None = None,
    ) -> NoReturn:
        """Raise HostUnreachableError."""
        self._refuse()

    def stream(
        self, argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: str | None = None
    ) -> NoReturn:
        """Raise HostUnreachableError."""
        self._refuse()

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str | Iterable[bytes] = ""
    ) -> NoReturn:
        """Raise HostUnreachableError."""
        self._refuse()

    def forward(self, here: Path, there: str) -> NoReturn:
        """Raise HostUnreachableError."""
        self._refuse()

    def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o600, timeout: float
    ) -> NoReturn:
        """Raise HostUnreachableError."""
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def _refuse(self) -> NoReturn:
        raise HostUnreachableError(
            f"{self.host}: only {self._controller}, which the cluster is run from, asks it",
            hint=f"run the command on {self._controller}",
        )

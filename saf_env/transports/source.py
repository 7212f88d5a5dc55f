"""What is sent to a host: a file of this machine, or bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from saf_env.errors import BringUpError
from saf_env.transports.process import PART


def size_of(source: Path | bytes, host: str) -> int:
    """How many bytes a source has, after a look whether it can be read.

    Raises:
        BringUpError: it cannot, and so is not sent to ``host``.
    """
    if isinstance(source, bytes):
        return len(source)
    try:
        if not source.is_file():
            source.stat()
            raise BringUpError(f"{host}: cannot send {source}: it is not a file")
        source.open("rb").close()
        return source.stat().st_size
    except OSError as error:
        raise BringUpError(f"{host}: cannot send {source}: {error.strerror}") from error


def parts(source: Path | bytes) -> Iterator[bytes]:
    """A source part by part: a file is never read as a whole."""
    # Opened by the thread that reads: closing it from another would wait for a read that hangs.
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        while part := file.read(PART):
            yield part

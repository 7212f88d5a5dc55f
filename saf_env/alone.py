"""One saf-env at a time, for what two must not do side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from saf_env.errors import BusyError, SafEnvError

Notify = Callable[[str], None]


def nobody(_: str) -> None:
    """Is told, and tells nobody."""


@contextlib.contextmanager
def alone(
    file: Path,
    work: str,
    *,
    wait: float,
    unwritable: Callable[[Exception], SafEnvError],
    notify: Notify = nobody,
) -> Iterator[None]:
    """Be the only saf-env that holds ``file``.

    The kernel frees it when its holder ends, however it ends.

    Args:
        file: what is held; made if need be, with its folder, and left there.
        work: what its holder does, in words that follow "another saf-env is".
        wait: seconds to wait for another holder.
        unwritable: gives the error to raise when the file cannot be made or held.
        notify: gets a line when there is another holder.

    Raises:
        BusyError: another one held it for longer than ``wait``.
        SafEnvError: what ``unwritable`` gives.
    """
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(file)
        try:
            held.acquire(timeout=0)
        except Timeout:
            notify(f"another saf-env is {work}; waiting for it")
            held.acquire(timeout=wait)
    except Timeout as error:
        raise BusyError(
            f"another saf-env has been {work} for longer than {wait:.0f} s",
            hint="wait until it is done or end it, then run the command again",
        ) from error
    except (OSError, NotImplementedError) as error:
        raise unwritable(error) from error
    try:
        yield
    finally:
        held.release()

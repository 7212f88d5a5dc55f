"""Memory bandwidth: copy and triad, as in McCalpin's STREAM, on one thread."""

import hashlib
import time
from typing import Any

import numpy as np

PERIOD = 4096  # the arrays repeat a pattern of this many elements
BLOCK = 16384  # elements; the three blocks of a triad step (384 KiB) stay in the second cache level
SCALAR = 3.0


def pattern(offset: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """One period of an array: whole numbers, so that copy and triad are exact in float64."""
    return (np.arange(PERIOD, dtype=np.float64) * 7 + offset) % PERIOD


def stream(elements: int, passes: int) -> dict[str, Any]:
    """Time ``passes`` passes of copy and triad over arrays of ``elements`` float64.

    All arrays are allocated and written before the first pass, which is dropped: it would measure
    page faults. Triad is ``a = b + 3 c`` done block by block, so that each array crosses the
    memory bus once.

    Args:
        elements: length of each of the three arrays, a multiple of ``BLOCK``.
        passes: timed passes, after the dropped one.

    Returns:
        ``copy``, ``triad``: seconds of each pass; ``copy_sha256``, ``triad_sha256``: digests of the
        arrays that the last pass wrote.
    """
    b, c = (np.tile(pattern(offset), elements // PERIOD) for offset in (0, 1))
    a = np.zeros(elements)
    copy = [_timed(lambda: np.copyto(a, b)) for _ in range(passes + 1)]
    copied = hashlib.sha256(a.data).hexdigest()
    triad = [_timed(lambda: _triad(a, b, c)) for _ in range(passes + 1)]
    return {
        "copy": copy[1:],
        "triad": triad[1:],
        "copy_sha256": copied,
        "triad_sha256": hashlib.sha256(a.data).hexdigest(),
    }


def _triad(a: Any, b: Any, c: Any) -> None:
    for first in range(0, len(a), BLOCK):
        part = slice(first, first + BLOCK)
        np.multiply(c[part], SCALAR, out=a[part])
        np.add(a[part], b[part], out=a[part])


def _timed(step: Any) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started

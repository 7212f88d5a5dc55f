"""Monte Carlo estimate of pi: points in the unit square, counted inside the quarter circle."""

import numpy as np

CHUNK = 32768  # two float32 arrays of this length fit the first two cache levels of any core


def count_inside(seed: int, stream: int, samples: int) -> int:
    """Count the points (x, y) with x*x + y*y < 1 among ``samples`` of one random stream.

    The streams of a seed are independent: stream ``i`` is child ``i`` of
    ``numpy.random.SeedSequence(seed).spawn``. The count is the same integer on every platform:
    PCG64 and its conversion to float32 are defined bit by bit, and the products and the sum are
    separate IEEE 754 operations, so that no compiler can fuse them.

    Args:
        seed: entropy of the whole workload.
        stream: index of the stream, from 0.
        samples: number of points, a multiple of ``CHUNK``.

    Returns:
        The number of points inside.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream,))
    generator = np.random.Generator(np.random.PCG64(sequence))
    x, y = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    inside = np.empty(CHUNK, np.bool_)
    count = 0
    for _ in range(samples // CHUNK):
        generator.random(out=x, dtype=np.float32)
        generator.random(out=y, dtype=np.float32)
        np.multiply(x, x, out=x)
        np.multiply(y, y, out=y)
        np.add(x, y, out=x)
        np.less(x, np.float32(1), out=inside)
        count += int(np.count_nonzero(inside))
    return count

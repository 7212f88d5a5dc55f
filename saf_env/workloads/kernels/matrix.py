"""Matrix products with MLX, on the device that MLX chooses."""

import os
import time
from typing import Any

import numpy as np

SMALLEST = 128


def _mlx() -> Any:
    # Read by MLX at its first product: on devices that have it, float32 would otherwise be
    # multiplied with the 11-bit significand of TF32.
    os.environ["MLX_ENABLE_TF32"] = "0"
    import mlx.core as mx

    return mx


def normal(seed: int, n: int) -> "tuple[Any, Any]":
    """Two n-by-n float32 matrices of standard normal entries, the same on every node."""
    generator = np.random.Generator(np.random.PCG64(seed))
    a = generator.standard_normal((n, n), dtype=np.float32)
    return a, generator.standard_normal((n, n), dtype=np.float32)


def whole(seed: int, n: int) -> "tuple[Any, Any]":
    """Two n-by-n float32 matrices of whole numbers: up to 4095 in the first, -1 to 1 in the second.

    For n up to 4096 every partial sum is below 2**24, so the product in float32 is exact in any
    order of summation; and the first matrix cannot be held in 11 bits, so that a product in
    float16, bfloat16 or TF32 is not.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    a = generator.integers(0, 4096, (n, n)).astype(np.float32)
    return a, generator.integers(-1, 2, (n, n)).astype(np.float32)


def products(seed: int, n: int) -> dict[str, Any]:
    """The MLX products of :func:`normal` and :func:`whole`, as numpy arrays, and what made them."""
    mx = _mlx()
    out = {}
    for name, make in (("normal", normal), ("whole", whole)):
        a, b = make(seed, n)
        out[name] = np.array(mx.matmul(mx.array(a), mx.array(b)))
    return {**out, "device": str(mx.default_device()), "mlx": mx.__version__}


def choose_size(largest: int, seconds: float) -> int:
    """The largest n = 128 * 2**k, at most ``largest``, whose product takes at most ``seconds``."""
    n = SMALLEST
    while 2 * n <= largest and 8 * time_products(n, 1)["seconds"] <= seconds:
        n *= 2
    return n


def time_products(n: int, count: int) -> dict[str, Any]:
    """Time ``count`` products of n-by-n float32 matrices one after the other, after one untimed.

    Returns:
        ``seconds``: of all ``count`` products; ``device``: MLX's name of the device.
    """
    mx = _mlx()
    a, b = (mx.array(m) for m in normal(0, n))
    mx.eval(mx.matmul(a, b))
    started = time.perf_counter()
    for _ in range(count):
        mx.eval(mx.matmul(a, b))
    return {"seconds": time.perf_counter() - started, "device": str(mx.default_device())}

"""The first task on a node: who am I, and are the packages there."""

import os
import platform
from typing import Any

import numpy as np


def greet() -> dict[str, Any]:
    """Say where this worker runs and as what.

    Returns:
        ``node_id``: Ray's id of the node; ``nice``: the worker's niceness (Ray's default of 15
        gives way to every other process); ``python``, ``numpy``, ``ray``: exact versions.
    """
    import ray

    return {
        "node_id": ray.get_runtime_context().get_node_id(),
        "nice": os.nice(0),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ray": ray.__version__,
    }

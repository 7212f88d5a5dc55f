"""The workload suite: run by ``saf-env test`` on a live cluster, one test a workload and node."""

from __future__ import annotations

import pytest

from saf_env.workloads import bandwidth, matmul, pi, scaling


def test_pi(node, on, trial):
    """Monte Carlo pi on all CPUs of the node."""
    pi.run(on(node), trial)


@pytest.mark.saf_nodes(group="mlx")
def test_matmul(node, on, trial):
    """Matrix product with MLX, on nodes that have it."""
    matmul.run(on(node), trial)


def test_bandwidth(node, on, trial):
    """Memory bandwidth of the node, one thread."""
    bandwidth.run(on(node), trial)


def test_scaling(node, on, trial):
    """One to all CPUs of the node."""
    scaling.run(on(node), trial)

"""Clusters and locks to test with; nothing here starts a process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saf_env.lock.files import render
from saf_env.lock.inputs import environment_platforms, inputs
from saf_env.lock.interpreters import Choice
from saf_env.lock.make import assemble
from saf_env.lock.model import Interpreter, Lock
from saf_env.lock.packages import Pin
from saf_env.spec.model import ClusterSpec
from saf_env.spec.parse import parse

STUDIO = """
[cluster]
name = "studio"
[python]
version = "3.13"
[environment]
requires = ["ray==2.60.0", "numpy"]
exclude_newer = "2026-11-10"
[environment.groups]
mlx = ["mlx; sys_platform == 'darwin'", "mlx[cpu]; sys_platform == 'linux'"]
cuda = ["cupy"]
unused = ["never-asked-for"]
[hosts.alpha]
address = "100.64.0.1"
platform = "macos-arm64"
[hosts.gamma]
address = "100.64.0.3"
platform = "linux-x86_64"
ssh = "gamma"
[[nodes]]
name = "inside"
host = "alpha"
kind = "container"
fallback = "native"
[[nodes]]
name = "mac"
host = "alpha"
kind = "native"
role = "head"
groups = ["mlx"]
[[nodes]]
name = "box"
host = "gamma"
kind = "native"
groups = ["mlx", "cuda"]
"""


@pytest.fixture
def studio() -> ClusterSpec:
    """A Mac with a container that may fall back, and a Linux box with two groups."""
    return parse(STUDIO)


def choice(platforms: tuple[str, ...], version: str = "3.13.7") -> Choice:
    interpreters = {
        name: Interpreter(name, version, "managed", "20260814", f"https://x.test/{name}", "ab" * 32)
        for name in platforms
    }
    return Choice(version, interpreters, {})


LockMaker = Callable[..., tuple[Lock, dict[str, str]]]


@pytest.fixture
def locked() -> LockMaker:
    """Makes a lock of a cluster with the packages given in every environment, and its files."""
    return _locked


def _locked(
    spec: ClusterSpec, version: str = "3.13.7", **versions: str
) -> tuple[Lock, dict[str, str]]:
    platforms = environment_platforms(spec)
    pins = {
        environment: [
            Pin(name, v, "", (f"sha256:{name.encode().hex():0<64}"[:71],))
            for name, v in versions.items()
        ]
        for environment in platforms
    }
    unsealed = assemble(spec, choice(platforms["driver"], version), pins, "")
    return render(unsealed, inputs(spec))

"""Values that unit tests share: a small locked cluster and its plan, made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from saf_env.errors import CommandTimeoutError
from saf_env.lock.model import EnvironmentLock, Interpreter, Lock, Toolchain
from saf_env.plan.build import NO_ENGINE, build
from saf_env.plan.model import ClusterPlan
from saf_env.spec.model import ClusterSpec
from saf_env.spec.parse import parse
from saf_env.transports.base import Transport
from saf_env.uv import Uv

CLUSTER = """
[cluster]
name = "local"
[python]
version = "3.12"
[environment]
requires = ["ray==2.60.0"]
[environment.groups]
mlx = ["mlx"]
[hosts.here]
platform = "linux-x86_64"
[[nodes]]
name = "linux"
host = "here"
kind = "container"
fallback = "native"
cpus = 2
[[nodes]]
name = "head"
host = "here"
kind = "native"
role = "head"
groups = ["mlx"]
memory = "1GiB"
resources = { tape = 2 }
"""

_BASE = "ray==2.60.0 \\\n    --hash=sha256:" + "a" * 64 + "\n"
_MLX = _BASE + "mlx==0.32.4 \\\n    --hash=sha256:" + "b" * 64 + "\n"


def _environment(name: str, groups: tuple[str, ...], text: str) -> EnvironmentLock:
    return EnvironmentLock(name, groups, text, hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture
def spec() -> ClusterSpec:
    return parse(CLUSTER)


@pytest.fixture
def lock() -> Lock:
    interpreter = Interpreter("linux-x86_64", "3.12.1", "system", "3.12.1 (main)", "", "c" * 64)
    environments = {
        "base": _environment("base", (), _BASE),
        "driver": _environment("driver", (), _BASE),
        "mlx": _environment("mlx", ("mlx",), _MLX),
    }
    toolchains = {
        node: Toolchain(
            node=node,
            platforms=("linux-x86_64",),
            interpreters={"linux-x86_64": interpreter},
            uv_version="0.13.9",
            uv_wheels={"linux-x86_64": "d" * 64},
            environment=environment,
            environment_sha256=environments[environment].sha256,
        )
        for node, environment in (("head", "mlx"), ("linux", "base"), ("driver", "driver"))
    }
    return Lock("local", "e" * 64, "f" * 64, "3.12.1", environments, toolchains, {})


@pytest.fixture
def plan(spec: ClusterSpec, lock: Lock) -> ClusterPlan:
    return build(spec, lock, Path("/project"), no_containers={"here": NO_ENGINE})


@dataclass
class Stalled:
    """A transport on which nothing comes to an end."""

    host: str = "alpha"

    def run(self, argv: Sequence[str], *, timeout: float, **_: object) -> None:
        raise CommandTimeoutError(f"{argv[0]} did not finish within {timeout:.0f} s")


@pytest.fixture
def stalled_uv(tmp_path: Path) -> Uv:
    """A uv that waits for ever, of a project in ``tmp_path``."""
    return Uv(cast(Transport, Stalled()), Path("/uv"), tmp_path, {"PATH": ""})

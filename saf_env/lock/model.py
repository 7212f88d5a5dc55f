"""What a lock holds, as frozen values: environments, and one toolchain for each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saf_env.spec.model import PythonSource


@dataclass(frozen=True)
class Interpreter:
    """One CPython build, for one platform.

    Attributes:
        platform: name of the platform it runs on.
        version: exact version, ``X.Y.Z``.
        source: where it comes from.
        build: ``managed`` and ``archive``: the release (``20260814``) or the archive's name;
            ``system``: ``sys.version`` of it, on one line.
        url: https address, or path relative to the project, of its archive; empty for ``system``.
        sha256: digest of the archive; for ``system``, of the interpreter's binary and, when it has
            one, its shared library (see :func:`saf_env.probe.interpreter_digest`).
    """

    platform: str
    version: str
    source: PythonSource
    build: str
    url: str
    sha256: str


@dataclass(frozen=True)
class EnvironmentLock:
    """The hash-pinned requirements of one environment, for all platforms of the cluster.

    Attributes:
        name: ``base``, or the names of its groups joined by ``+`` in sorted order; ``driver`` for
            the environment of the test driver.
        groups: its groups, sorted.
        text: the requirements file, as on disk.
        sha256: digest of ``text``.
    """

    name: str
    groups: tuple[str, ...]
    text: str
    sha256: str


@dataclass(frozen=True)
class Toolchain:
    """What builds one node: ``lockfiles/<cluster>/toolchains/<node>.toml``.

    Attributes:
        node: name of the node.
        platforms: platforms it may run on, its own first (a container with a native fallback on a
            Mac has two).
        interpreters: by platform name.
        uv_version: exact version of uv.
        uv_wheels: digest of uv's wheel by platform name.
        environment: name of its environment.
        environment_sha256: digest of that environment's lock.
        base_image: of a container node, the image that its own is built on, by digest:
            ``name@sha256:<digest>``, or ``sha256:<digest>``, the id of one that an engine has;
            empty where none could be had, and for other nodes.
    """

    node: str
    platforms: tuple[str, ...]
    interpreters: Mapping[str, Interpreter]
    uv_version: str
    uv_wheels: Mapping[str, str]
    environment: str
    environment_sha256: str
    base_image: str = ""


@dataclass(frozen=True)
class Lock:
    """A whole lock: ``lockfiles/<cluster>/``.

    Attributes:
        cluster: name of the cluster it was made for.
        inputs: digest of what was locked (see :func:`saf_env.lock.inputs.inputs_digest`).
        sha256: digest over all files of the lock; two checkouts with the same one agree.
        python: the exact CPython version, one for the whole cluster.
        environments: by name; always holds ``driver``.
        toolchains: by node name; also ``driver``, for all platforms, the head's first.
        downloads: the interpreter table in uv's format, as JSON values; empty for ``system``.
    """

    cluster: str
    inputs: str
    sha256: str
    python: str
    environments: Mapping[str, EnvironmentLock]
    toolchains: Mapping[str, Toolchain]
    downloads: Mapping[str, object]

"""The image of an environment: its key, from everything that goes in.

In come an :class:`~saf_env.plan.model.EnvironmentPlan` and the digests of base and uv, out comes an
:class:`~saf_env.plan.model.ImagePlan`. What of saf-env itself goes into the build is read once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from saf_env.plan.model import EnvironmentPlan, ImagePlan

CLUSTER_LABEL = "saf-env.cluster"
"""Label of an image: the id of the cluster that it was built for, another may use it too."""

KEY_LABEL = "saf-env.key"
"""Label of an image: the digest of all that went into it, :attr:`ImagePlan.key`."""

FINGERPRINT_LABEL = "saf-env.fingerprint"
"""Label of an image: the fingerprint of the nodes that run it, as `saf-env status` shows it."""

LAYOUT = 1
"""Raised when images, or the packs in them, are made in another way that no file below shows."""

_PACKAGE = Path(__file__).parents[1]
_SOURCES = {
    "Dockerfile": _PACKAGE.parent / "images" / "Dockerfile",
    "interpreter/interpreter.sh": _PACKAGE.parent / "images" / "interpreter.sh",
    "entry.py": _PACKAGE / "runtimes" / "entry.py",
    "fingerprint.py": _PACKAGE / "plan" / "fingerprint.py",
    "probe.py": _PACKAGE / "probe.py",
    "environment/environment.py": _PACKAGE.parent / "images" / "environment.py",
    "environment/saf_env/probe.py": _PACKAGE / "probe.py",
    "environment/saf_env/provision/record.py": _PACKAGE / "provision" / "record.py",
}


@cache
def build_files() -> Mapping[str, bytes]:
    """What of saf-env goes into every build: content by path in the build context."""
    return {path: source.read_bytes() for path, source in _SOURCES.items()}


def image_plan(environment: EnvironmentPlan, base: str, uv_wheel: str) -> ImagePlan:
    """The plan of the image that has ``environment``.

    Args:
        environment: what is installed, with which interpreter, by which uv.
        base: the base image, ``name@sha256:<digest>`` or ``sha256:<id>``.
        uv_wheel: sha256 of uv's wheel for the environment's platform.
    """
    ingredients = {
        "layout": LAYOUT,
        "base": base,
        "requirements": requirements(environment.lock.text),
        "interpreter": vars(environment.interpreter),
        "uv": [environment.uv_version, uv_wheel],
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in build_files().items()},
    }
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:12]
    # A tag may not have all that an environment's name has ("mlx+torch"), nor be longer than 128.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", environment.lock.name)[:64]
    return ImagePlan(
        key=key,
        tag=f"saf-env:{name}-{environment.interpreter.platform}-{key}",
        base=base,
        environment=environment,
        uv_wheel=uv_wheel,
    )


def requirements(text: str) -> list[str]:
    """The lines of a lock's ``text`` that decide what is installed."""
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]

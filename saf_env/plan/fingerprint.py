"""The fingerprint: one digest over all that decides whether a node is what the lock says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def fingerprint(*, version: str, build: str, sha256: str, packages: Mapping[str, str]) -> str:
    """A stable digest of an interpreter build and the packages installed for it.

    Args:
        version: exact CPython version, ``X.Y.Z``.
        build: build of the interpreter as in :class:`saf_env.lock.model.Interpreter`.
        sha256: digest of the interpreter as there.
        packages: exact version by normalised name.

    Returns:
        64 hex digits: SHA-256 over the arguments as JSON with sorted keys and no blanks.
    """
    value = {
        "python": {"version": version, "build": build, "sha256": sha256},
        "packages": dict(packages),
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def actual_build(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Build and sha256 of the interpreter that facts were gathered under, as a lock records them.

    The lock knows an unpacked interpreter by its archive, which is not on the node. Provisioning
    has noted in the environment's marker which binary came out of which archive: while the digest
    of the binary is the noted one, the archive is the marker's. Else the binary speaks for itself.
    """
    found = facts["interpreter"]
    marker = facts.get("environment", {}).get("marker") or {}
    noted = marker.get("interpreter", {})
    unpacked = noted.get("source") in ("managed", "archive")
    if unpacked and marker.get("interpreter_digest") == found["digest"]:
        return str(noted.get("build")), str(noted.get("sha256"))
    return found["build"], found["digest"]


def actual_fingerprint(facts: Mapping[str, Any]) -> str:
    """The fingerprint of what was found, by facts of :mod:`saf_env.probe`.

    Args:
        facts: the ``facts`` that the probe gave; ``interpreter``, ``environment`` and ``packages``
            are needed.

    Returns:
        64 hex digits; empty when a needed fact is missing.
    """
    if not {"interpreter", "environment", "packages"} <= facts.keys():
        return ""
    build, sha256 = actual_build(facts)
    version, packages = facts["interpreter"]["version"], dict(facts["packages"])
    return fingerprint(version=version, build=build, sha256=sha256, packages=packages)

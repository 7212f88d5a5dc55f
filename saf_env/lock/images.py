"""The base image of container nodes, pinned by digest."""

from __future__ import annotations

from collections.abc import Callable

from saf_env.engine import Engine

LOCAL_BASE = "saf-env-base:local"
"""What ``make base-image`` makes, for machines that cannot pull."""


def pin_base(reference: str, engine: Engine, notify: Callable[[str], None]) -> str:
    """``reference`` by digest: as its registry has it, or else as the engine here does.

    A digest of a registry serves every machine and both architectures; the id of an image that an
    engine has serves the machines that have the very same image.

    Args:
        reference: of an image, such as ``debian:bookworm-slim``.
        engine: of this machine.
        notify: gets a line when it could not be had from the registry.

    Returns:
        ``name@sha256:<digest>``, ``sha256:<id>``, or nothing when neither knows an image.
    """
    if "@" in reference:
        return reference
    if digest := engine.registry_digest(reference):
        return f"{reference}@{digest}"
    for name in (reference, LOCAL_BASE):
        if identity := engine.image_id(name):
            notify(f"the registry of {reference} cannot be reached; locking {name} of this engine")
            return identity
    notify(
        f"the base image {reference} cannot be had: its registry cannot be reached, and no engine "
        "here has it. Container nodes cannot be built; `make base-image` makes a base from Debian "
        "packages"
    )
    return ""

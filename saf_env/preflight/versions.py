"""Checks of what locked packages are built for: the system's version, the processor's own code."""

from __future__ import annotations

import re

from saf_env.platforms import PLATFORMS
from saf_env.preflight.base import Case, Check, UnknownFactError, Verdict, fail, ok, warn

_NATIVE = (
    "make the environment with a Python for Apple's processors (`saf-env lock --python-source "
    "managed`), and open the terminal without Rosetta (`arch` must print arm64)"
)


def os_version(case: Case) -> Verdict:
    """A macOS, or a Linux with a C library, that the locked packages are built for."""
    version, wanted = str(case.fact("platform")["version"]), PLATFORMS[case.node.platform]
    mac, floor = wanted.os == "macos", wanted.oldest_system
    update = "update macOS" if mac else "update the system, or the base image of a container"
    found = re.search(rf"{floor.split()[0]} (\d+)(?:\.(\d+))?", version)
    if found is None and (mac or version):
        raise UnknownFactError(f"it says {version or 'nothing'}, expected a version")
    if found is None:
        return fail(f"the locked packages need {floor}", "its C library is not glibc", update)
    if (int(found[1]), int(found[2] or 0)) >= wanted.oldest:
        return ok(version)
    if "mlx" in case.node.environment.packages:
        return fail(f"MLX needs {floor} or newer", version, update)
    return warn(
        f"older than {floor}, for which packages are locked",
        version,
        f"packages other than MLX may run there all the same; if they do not: {update}",
    )


def python_arch(case: Case) -> Verdict:
    """An interpreter of the host's own architecture, which nothing translates."""
    seen, wanted = case.fact("interpreter"), PLATFORMS[case.node.platform].machine
    if seen["translated"]:
        return fail(
            "Python runs under Rosetta",
            f"{seen['executable']} is for Intel: without Metal, and slow",
            _NATIVE,
        )
    if seen["machine"] != wanted:
        return fail(
            "Python is for another architecture",
            f"expected {wanted}, found {seen['machine']}, {seen['executable']}",
            "run `saf-env check --fix`, which makes the environment anew",
        )
    return ok(f"native, {wanted}")


CHECKS = (
    Check(
        "os-version",
        "node",
        "fail",
        "macOS 14 or glibc 2.35, or newer",
        os_version,
        "MLX has wheels for macOS 14 and newer, and for Linux with glibc 2.35 and newer (Debian "
        "12, Ubuntu 22.04). An older one is a warning where the node's environment has no MLX. In "
        "a container that of its image counts.",
        "Update macOS or the Linux system; of a container, take a newer base image.",
    ),
    Check(
        "python-arch",
        "node",
        "fail",
        "an interpreter for the host's own processor",
        python_arch,
        "A Python for Intel runs on a Mac with Apple's processor too, translated by Rosetta: "
        "without the GPU, and as a node of another platform than its neighbours.",
        "`saf-env lock --python-source managed`, then `saf-env check --fix`, in a terminal "
        "without Rosetta (`arch` prints arm64).",
    ),
)

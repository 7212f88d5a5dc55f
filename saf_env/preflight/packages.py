"""Checks of the installed packages, their files, and the uv that installs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saf_env.plan.fingerprint import actual_fingerprint
from saf_env.preflight.base import Case, Check, Verdict, damages, fail, listed, ok

_REBUILD = "run `saf-env check --fix`, which makes the environment anew"


@dataclass(frozen=True)
class Differences:
    """How installed packages differ from planned ones; each as text for people."""

    missing: tuple[str, ...]
    other: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether there is a difference."""
        return bool(self.missing or self.other or self.extra)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "other version": self.other, "not locked": self.extra}
        return "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)


def differences(planned: Mapping[str, str], found: Sequence[Sequence[str]]) -> Differences:
    """Compare planned packages (version by normalised name) with pairs of name and version."""
    by_name: dict[str, list[str]] = {}
    for name, version in found:
        by_name.setdefault(name, []).append(version)
    missing = [f"{name} {version}" for name, version in planned.items() if name not in by_name]
    other, extra = [], []
    for name, versions in by_name.items():
        if name not in planned:
            extra.append(f"{name} {versions[0]}")
        elif not _same(planned[name], versions):
            other.append(f"{name} {', '.join(versions)} instead of {planned[name]}")
    return Differences(tuple(missing), tuple(other), tuple(extra))


def _same(planned: str, versions: Sequence[str]) -> bool:
    if versions == [planned]:
        return True
    from packaging.version import InvalidVersion, Version

    try:
        return len(versions) == 1 and Version(versions[0]) == Version(planned)
    except InvalidVersion:
        return False


def packages_locked(case: Case) -> Verdict:
    """Every locked package is there, in its exact version, in an environment that saf-env made."""
    case.host_is_asked()
    plan = case.node.environment
    if "environment" not in case.facts["facts"] and case.node.kind == "native":
        reason = case.facts["unknown"].get("environment", "")
        return fail(
            "the environment is not installed",
            f"{plan.path}: {reason}",
            "run `saf-env check --fix` or `saf-env up`",
        )
    case.fact("environment")  # without an image there is none, and image-present says so
    wrong = differences(plan.packages, case.fact("packages"))
    if wrong.missing or wrong.other:
        return fail("packages differ from the lock", str(wrong), _REBUILD)
    told = f"fingerprint {actual_fingerprint(case.facts['facts'])[:12]}"
    if case.node.kind == "container":  # which lock an image was made from, its own key says
        return ok(f"all {len(plan.packages)} packages as locked", told)
    marker = case.fact("environment")["marker"] or {}
    if (marker.get("key"), marker.get("environment_sha256")) != (plan.key, plan.lock.sha256):
        return fail(
            "the environment was not made from this lock",
            f"expected {plan.key}, its marker says {marker.get('key', 'nothing')}",
            _REBUILD,
        )
    return ok(f"all {len(plan.packages)} packages as locked", told)


def packages_extra(case: Case) -> Verdict:
    """Nothing is installed that the lock does not know."""
    wrong = differences(case.node.environment.packages, case.fact("packages"))
    if wrong.extra:
        return fail("packages that are not in the lock", listed(wrong.extra), _REBUILD)
    count, names = case.fact("files")["foreign"]
    if count:
        return fail(f"{count} files that no locked package brought", listed(names), _REBUILD)
    return ok("nothing but the locked packages")


def packages_intact(case: Case) -> Verdict:
    """Every file is as it was when it was verified against its package's RECORD."""
    marker = case.fact("environment")["marker"] or {}
    if "files" not in case.facts["facts"]:
        reason = case.facts["unknown"].get("files", "")
        return fail("the files cannot be compared with their manifest", reason, _REBUILD)
    seen = case.fact("files")
    if seen["manifest_sha256"] != marker.get("manifest_sha256"):
        return fail("the manifest of the environment's files was changed", "", _REBUILD)
    summary, which = damages(seen)
    if summary:
        return fail(summary, which, _REBUILD)
    return ok(f"{seen['files']} files intact", f"{seen['hashed']} of them hashed now")


def uv_version(case: Case) -> Verdict:
    """The uv that would be used is the pinned one."""
    seen, wanted = case.fact("uv"), case.node.environment.uv_version
    if seen["version"] == wanted:
        return ok(f"uv {wanted}")
    return fail(
        "another version of uv",
        f"expected {wanted}, found {seen['version']} at {seen['path']}",
        "run `make` in the project folder, which fetches the pinned uv",
    )


CHECKS = (
    Check(
        "packages-locked",
        "node",
        "fail",
        "every locked package, in its exact version",
        packages_locked,
        "Installed distributions are compared with the lock's for this platform, and the marker "
        "that provisioning leaves as its last act must be that of this lock.",
        "`saf-env check --fix` or `saf-env up` makes the environment from the lock.",
    ),
    Check(
        "packages-extra",
        "node",
        "fail",
        "nothing beyond the locked packages",
        packages_extra,
        "A package that the lock does not know may shadow or change one that it knows, on one node "
        "only. Files that no package brought count as well.",
        "`saf-env check --fix` makes the environment anew. What you want to have there belongs in "
        "the cluster file.",
    ),
    Check(
        "packages-intact",
        "node",
        "fail",
        "files as their packages' RECORD says",
        packages_intact,
        "Every file was verified against RECORD at install. Size, change time and inode of each "
        "are compared now, and what differs is hashed; `--deep` hashes all of them.",
        "`saf-env check --fix` makes the environment anew: a changed file is never repaired in "
        "place.",
    ),
    Check(
        "uv-version",
        "node",
        "fail",
        "the pinned uv",
        uv_version,
        "uv installs the environment; another version may install something else.",
        "`make` in the project folder fetches the pinned uv.",
    ),
)

"""Checks of the interpreter: its version, its build, and that nothing else runs in it."""

from __future__ import annotations

from saf_env.plan.fingerprint import actual_build
from saf_env.preflight.base import (
    Case,
    Check,
    UnknownFactError,
    Verdict,
    damages,
    fail,
    listed,
    ok,
    warn,
)

_REBUILD = "run `saf-env check --fix`, which makes the environment anew"


def python_version(case: Case) -> Verdict:
    """The exact version, and CPython."""
    seen, wanted = case.fact("interpreter"), case.node.environment.interpreter.version
    found = f"{seen['implementation']} {seen['version']}"
    if found == f"cpython {wanted}":
        return ok(f"CPython {wanted}")
    return fail("another version of Python", f"expected cpython {wanted}, found {found}", _REBUILD)


def python_build(case: Case) -> Verdict:
    """The build that the lock pins, by digest; same version but another build is a fail."""
    case.fact("environment")
    seen, wanted = case.fact("interpreter"), case.node.environment.interpreter
    build, sha256 = actual_build(case.facts["facts"])
    if seen["free_threaded"] or seen["debug"]:
        return fail("a free-threaded or debug build of Python", seen["build"], _REBUILD)
    if (build, sha256) == (wanted.build, wanted.sha256):
        return ok(f"build {wanted.build}", f"digest {seen['digest'][:12]}")
    expected = f"expected {wanted.build}, digest {wanted.sha256[:12]}"
    return fail(
        "another build of Python",
        f"{expected}; found {build}, digest {sha256[:12]}, at {seen['executable']}",
        _REBUILD
        + "; if the system's Python was upgraded, run `saf-env lock --python-source system` first",
    )


def python_isolated(case: Case) -> Verdict:
    """Nothing runs at the interpreter's start that is not in the lock."""
    seen, environment = case.fact("isolation"), case.fact("environment")
    if environment["system_site"]:
        return fail(
            "the environment also sees the system's packages",
            "include-system-site-packages in pyvenv.cfg",
            _REBUILD,
        )
    if seen["startup"]:
        return fail(
            "code from outside of the lock runs at every start", listed(seen["startup"]), _REBUILD
        )
    shadowing = [
        name for name in ("PYTHONPATH", "PYTHONHOME") if name in case.facts["user_variables"]
    ]
    if shadowing:
        return warn(
            f"{' and '.join(shadowing)} set in your shell",
            "saf-env's nodes run without, a driver that you start yourself does not",
            f"unset {' '.join(shadowing)}",
        )
    if seen["base"]:
        return warn(
            "the interpreter's own library has a start-up hook",
            listed(seen["base"]),
            "lock a managed interpreter with `saf-env lock --python-source managed`",
        )
    return ok("nothing from outside of the lock runs at start")


def python_intact(case: Case) -> Verdict:
    """Every file of the standard library is as it was when the environment was made."""
    environment, remedy = case.fact("environment"), _reinstall(case)
    marker = environment["marker"] or {}
    noted = marker.get("interpreter_digest")
    if noted and case.fact("interpreter")["digest"] != noted:
        raise UnknownFactError("it is another interpreter, as python-build tells")
    if "python_files" not in case.facts["facts"]:
        reason = case.facts["unknown"].get("python_files", "")
        return fail("the library cannot be compared with its manifest", reason, _REBUILD)
    seen = case.fact("python_files")
    if seen["manifest_sha256"] != marker.get("python_manifest_sha256"):
        return fail("the manifest of the library's files was changed", "", _REBUILD)
    summary, which = damages(seen)
    if summary:
        return fail(summary, f"in {seen['path']}: {which}", remedy)
    count, names = seen["foreign"]
    if count:
        # What a system's package manager adds is its own; an archive has nothing to add.
        told = warn if _of_system(case) else fail
        what = "1 file" if count == 1 else f"{count} files"
        return told(f"{what} more than there were", f"in {seen['path']}: {listed(names)}", remedy)
    return ok(f"{seen['files']} files intact", f"{seen['hashed']} of them hashed now")


def _of_system(case: Case) -> bool:
    """Whether the interpreter is the host's own; that of an image is a copy of it."""
    node = case.node
    return node.kind == "native" and node.environment.interpreter.source == "system"


def _reinstall(case: Case) -> str:
    if not _of_system(case):
        return _REBUILD
    return (
        "install the system's Python again (on Debian `sudo apt-get install --reinstall` with the "
        f"names that `dpkg -l 'libpython3*'` lists); if it is meant to be so, remove "
        f"{case.node.environment.path}, then run `saf-env check --fix`"
    )


CHECKS = (
    Check(
        "python-version",
        "node",
        "fail",
        "the exact version of CPython",
        python_version,
        "Ray refuses a join when nodes differ in Python's patch version. The interpreter of the "
        "node's environment must be CPython in exactly the version of the lock.",
        "`saf-env check --fix` makes the environment anew, with the locked interpreter.",
    ),
    Check(
        "python-build",
        "node",
        "fail",
        "the build of CPython that is locked",
        python_build,
        "Two builds of one version may differ in compiled-in libraries and options. The digest of "
        "the binary and its shared library must be that of the lock, or, for an unpacked archive, "
        "the one it had when its archive was verified.",
        "`saf-env check --fix` makes the environment anew. Where the system's Python was "
        "upgraded, lock it again first: `saf-env lock --python-source system`.",
    ),
    Check(
        "python-intact",
        "node",
        "fail",
        "the files of CPython's own library as they were",
        python_intact,
        "Every file that programs import from the interpreter's own library, bytecode, tests and "
        "packages of its own left out, was noted when the environment was made, out of an archive "
        "verified by digest, or as the system had it. They are compared as those of packages are. "
        "Files that have come since count too: they would be found before the locked packages. "
        "Where the library is the system's, which installs what it likes, they are a warning.",
        "`saf-env check --fix` unpacks the interpreter again and makes the environment anew. The "
        "system's own Python is for its package manager to mend.",
    ),
    Check(
        "python-isolated",
        "node",
        "fail",
        "only locked code runs in the interpreter",
        python_isolated,
        "A .pth file, a sitecustomize or a PYTHONPATH puts other code before the locked packages. "
        "Only what a locked package brought is accepted.",
        "`saf-env check --fix` makes the environment anew, without what was added. A variable is "
        "for you to unset; a hook of the system's Python is got rid of with `saf-env lock "
        "--python-source managed`.",
    ),
)

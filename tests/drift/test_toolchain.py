"""Single differences of an interpreter, of one node beside another, of the lock: each is found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from tests.drift.node import Change, Facts, Make, Seen, Table, prove

raises = Table()


# The interpreter


@raises("python-build fail", "python-intact skip")
def interpreter_of_another_build(here: Change) -> str:
    other = here.aside / "python"
    other.write_bytes(here.python.read_bytes() + b"\0")
    other.chmod(0o755)
    here.over(here.python, other)
    return str(here.python)


@raises("python-intact fail")
def module_of_python_changed(here: Change) -> str:
    other = here.aside / "random.py"
    other.write_bytes((here.library / "random.py").read_bytes() + b"# changed\n")
    here.over(here.library / "random.py", other)
    return "random.py"


@raises("python-intact fail")
def library_of_python_changed(here: Change) -> str:
    path = next(here.library.glob("lib-dynload/_json.*.so"))
    other = here.aside / "flipped"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    other.chmod(0o755)
    here.over(path, other)
    return path.name


@raises("python-intact warn")
def module_of_python_added(here: Change) -> str:
    new = here.aside / "new"
    here.write(new / "evil.py")
    here.inside(f"mount -t overlay -o 'lowerdir={new}:{here.library}' overlay {here.library}")
    return "evil.py"


@raises("python-intact warn", "python-isolated warn")
def usercustomize_of_python(here: Change) -> str:
    new = here.aside / "new"
    here.write(new / "usercustomize.py")
    here.inside(f"mount -t overlay -o 'lowerdir={new}:{here.library}' overlay {here.library}")
    return "usercustomize.py"


@raises("python-build fail", "python-intact skip", "packages-intact fail")
def environment_of_another_interpreter(here: Change) -> str:
    other = here.aside / "bin" / here.python.name
    other.parent.mkdir()
    other.write_bytes(here.python.read_bytes() + b"\0")
    other.chmod(0o755)
    here.link(here.env / "bin" / "python", other)
    return str(other)


@raises("packages-intact fail")
def library_of_another_interpreter(here: Change) -> str:
    home = f"home = {here.python.parent}"
    here.edit(here.env / "pyvenv.cfg", home, f"home = {here.aside}")
    return "pyvenv.cfg"


@raises("packages-extra fail")
def second_configuration_of_the_environment(here: Change) -> str:
    text = (here.env / "pyvenv.cfg").read_text()
    here.write(here.env / "bin" / "pyvenv.cfg", text)
    return "bin/pyvenv.cfg"


@raises("packages-locked fail")
def interpreter_missing(here: Change) -> None:
    here.remove(here.env / "bin" / "python")


@raises("packages-locked fail")
def interpreter_that_is_none(here: Change) -> str:
    here.remove(here.env / "bin" / "python")
    here.write(here.env / "bin" / "python", "#!/bin/sh\necho hello\n", 0o755)
    return "no Python"


@raises("packages-locked fail")
def environment_missing(here: Change) -> str:
    here.remove(here.env)
    return "not installed"


@raises("packages-locked fail", "lock-same fail")
def environment_of_another_lock(here: Change) -> str:
    here.rename(here.env, here.env.name[:-12] + "0" * 12)
    return "0" * 12


@raises("python-version fail")
def another_patch_version(here: Change) -> str:
    def other(facts: Facts) -> None:
        seen = facts["head"]["facts"]["interpreter"]
        seen["version"] = seen["version"].rpartition(".")[0] + ".99"

    here.altered = other
    return ".99"


@raises("python-build fail", "python-intact skip")
def another_build_of_the_same_version(here: Change) -> None:
    here.altered = lambda facts: facts["head"]["facts"]["interpreter"].update(digest="0" * 64)


@raises("python-build fail")
def free_threaded_interpreter(here: Change) -> None:
    here.altered = lambda facts: facts["head"]["facts"]["interpreter"].update(free_threaded=True)


@raises("python-arch fail")
def interpreter_of_another_architecture(here: Change) -> None:
    here.altered = lambda facts: facts["head"]["facts"]["interpreter"].update(machine="riscv64")


# One node beside another


@raises(
    "packages-agree fail", "packages-locked fail", "packages-extra fail", "packages-intact fail"
)
def numpy_of_one_node_only(here: Change) -> str:
    here.arguments = []
    here.rename(here.metadata("numpy", other=True), "numpy-2.0.dist-info")
    return "numpy 2.0"


@raises("ray-build fail", "packages-intact fail")
def ray_of_another_commit(here: Change) -> str:
    here.arguments = []
    path = here.other_site / "ray" / "_version.py"
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("commit = "))
    here.edit(path, line, f'commit = "{"0" * 40}"')
    return "0" * 12


# The lock


@raises("lock-fresh fail")
def package_asked_for_since(here: Change) -> None:
    here.edit(here.project.file, '"six"]', '"six", "idna"]')


@raises("lock-fresh fail")
def python_asked_for_since(here: Change) -> None:
    here.edit(here.project.file, ">=3.11,", ">=3.10,")


@raises("lock-fresh fail")
def group_asked_for_since(here: Change) -> None:
    here.edit(here.project.file, 'role = "head"', 'role = "head"\ngroups = ["more"]')


@raises("lock-fresh fail")
def other_day_asked_for_since(here: Change) -> None:
    here.edit(here.project.file, "2026-11-10", "2026-11-11")


@raises("exit 3")
def lock_edited(here: Change) -> str:
    here.edit(here.lock / "environments" / "base.txt", "numpy==", "numpy==9")
    return "base.txt"


@raises("exit 3")
def toolchain_edited(here: Change) -> str:
    here.edit(here.lock / "toolchains" / "head.toml", "sha256 = ", "sha257 = ")
    return "head.toml"


@raises("exit 3")
def lock_cut_short(here: Change) -> str:
    path = here.lock / "lock.toml"
    here.write(path, path.read_bytes()[:500])
    return "lock.toml"


@raises("exit 3")
def file_of_the_lock_missing(here: Change) -> str:
    here.remove(here.lock / "environments" / "more.txt")
    return "more.txt"


@raises("exit 3")
def lock_of_another_cluster(here: Change) -> str:
    manifest = here.lock / "lock.toml"
    body, mark, _ = manifest.read_text().rpartition("# sha256 of the lines above: ")
    body = body.replace('cluster = "drift"', 'cluster = "stranger"')
    here.write(manifest, f"{body}{mark}{hashlib.sha256(body.encode()).hexdigest()}\n")
    return "stranger"


@raises("exit 3")
def nothing_locked(here: Change) -> str:
    here.remove(here.lock)
    return "nothing is locked"


@pytest.mark.parametrize(("make", "expected"), raises.cases)
def test_found(
    change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]
) -> None:
    prove(change, make, expected, healthy)


def test_the_node_is_healthy_again(change: Change, healthy: Mapping[bool, Seen]) -> None:
    change.arguments = ["head", "--deep"]
    prove(change, lambda _: None, set(), healthy)

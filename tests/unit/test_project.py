"""The project keeps its own rules: locks without addresses, imports one way, files short."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import saf_env
from saf_env.platforms import PLATFORMS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(saf_env.__file__).parent.parent
LOCKS = ROOT / "lockfiles"
TOOL_LOCK = LOCKS / "saf-env.txt"
DEV_LOCK = LOCKS / "saf-env-dev.txt"
PIN = ROOT / "saf_env" / "uv-pin.txt"

# The rooms in the order of the architecture: each may import from those before it.
# fmt: off
ROOMS = [
    "errors", "alone", "platforms", "spec", "transports", "uv", "engine", "lock", "plan", "probe",
    "preflight", "provision", "runtimes", "cluster", "workloads", "harness", "report", "cli",
    "__main__",
]
# fmt: on
# What starts processes: the transports; the bootstrap, which comes before them; and what runs on a
# node, not in the controller.
STARTERS = (
    "transports",
    "bootstrap",
    "probe",
    "runtimes.agent",
    "runtimes.entry",
    "workloads",
)

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "saf_env").rglob("*.py"))
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return loaded


def requirements(path: Path) -> dict[str, list[tuple[Requirement, str]]]:
    """The requirements of a lock with the text of their hash options, by normalised name."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[tuple[Requirement, str]]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            wanted, *hashes = line.split("--hash=")
            requirement = Requirement(wanted)
            known = found.setdefault(canonicalize_name(requirement.name), [])
            known.append((requirement, " ".join(hashes)))
    return found


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room(module: str) -> str:
    """The room of a module; an empty text for the package itself."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_to_earlier_rooms(module: str) -> None:
    here = room(module)
    wanted = {room(name) for name in imports(MODULES[module]) if name.startswith("saf_env.")}
    if here == "bootstrap":
        assert not wanted, "the bootstrap runs where nothing of saf_env can be imported"
    elif here != "__init__":
        allowed = {"__version__", *ROOMS[: ROOMS.index(here) + 1]}
        assert wanted <= allowed, f"{module} imports from {sorted(wanted - allowed)}"


def test_imports_have_no_cycle() -> None:
    def real(name: str) -> str | None:
        return next((n for n in (name, f"{name}.__init__") if n in MODULES), None)

    graph = {
        module: {found for name in imports(path) if (found := real(name)) and found != module}
        for module, path in MODULES.items()
    }
    while leaves := [module for module, wanted in graph.items() if not wanted & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("module", MODULES)
def test_only_transports_start_processes(module: str) -> None:
    if not module.startswith(tuple(f"saf_env.{name}" for name in STARTERS)):
        assert "subprocess" not in set(imports(MODULES[module]))


def test_no_file_is_too_long() -> None:
    # These run where nothing else of saf-env is, so all of each has to be in one file.
    in_one_file = {ROOT / "saf_env" / "probe.py", ROOT / "saf_env" / "runtimes" / "agent.py"}
    folders = ("saf_env", "tests", "benchmarks", ".ci")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {
        str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 400 and p not in in_one_file
    }


def test_locks_hold_no_address() -> None:
    # Only interpreters have an address: the index that serves them is the release itself.
    with_addresses = ("toolchains", "python-downloads.json")
    for path in (p for p in LOCKS.rglob("*") if p.is_file()):
        if not any(part in with_addresses for part in path.relative_to(LOCKS).parts):
            assert "://" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", [TOOL_LOCK, DEV_LOCK, PIN], ids=lambda path: path.name)
def test_pins_are_exact_and_have_digests(path: Path) -> None:
    for found in requirements(path).values():
        for requirement, hashes in found:
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier))
            assert re.fullmatch(r"(sha256:[0-9a-f]{64} *)+", hashes)


def test_locks_hold_what_the_project_asks_for(project: dict[str, Any]) -> None:
    runtime = project["project"]["dependencies"]
    for path, asked in (
        (TOOL_LOCK, runtime),
        (DEV_LOCK, runtime + project["dependency-groups"]["dev"]),
    ):
        locked = requirements(path)
        for wanted in map(Requirement, asked):
            for found, _ in locked[canonicalize_name(wanted.name)]:
                assert str(found.specifier).removeprefix("==") in wanted.specifier


def test_both_locks_agree() -> None:
    def versions(path: Path) -> dict[str, set[str]]:
        return {n: {str(r.specifier) for r, _ in found} for n, found in requirements(path).items()}

    tool, dev = versions(TOOL_LOCK), versions(DEV_LOCK)
    assert {name: dev[name] for name in tool} == tool


def test_uv_is_pinned_once_for_each_platform(project: dict[str, Any]) -> None:
    pins = requirements(PIN)["uv"]
    for known in PLATFORMS.values():
        where = {"sys_platform": known.sys_platform, "platform_machine": known.machine}
        assert sum(bool(r.marker and r.marker.evaluate(where)) for r, _ in pins) == 1
    (version,) = {str(r.specifier).removeprefix("==") for r, _ in pins}
    (backend,) = project["build-system"]["requires"]
    assert version in Requirement(backend).specifier, "uv can then build the project by itself"


def test_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == saf_env.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(saf_env.__version__)}\b", changes, re.MULTILINE)


def test_every_make_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(.*)$", text, re.MULTILINE)
    assert {name for name, rest in targets if "## " not in rest} == set()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == {name for name, _ in targets}

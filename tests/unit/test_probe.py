"""The parts of the probe that read text, without a process or a socket."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from saf_env import probe

# From the manual page of vm_stat(1) and a Mac with 16 KiB pages.
VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               12345.
Pages active:                            700000.
Pages inactive:                          600000.
Pages speculative:                         1000.
Pages throttled:                              0.
Pages wired down:                        200000.
Pages purgeable:                             55.
"Translation faults":                 123456789.
"""
PS = """\
    1 /sbin/launchd
  812 /x/ray/core/src/ray/raylet/raylet --port=1 HOME=/Users/a SAF_ENV_NODE=saf-1/head/n1 A=b
 9001 -zsh TERM=xterm
"""


def test_memory_of_a_mac() -> None:
    assert probe.vm_stat_available(VM_STAT) == (12345 + 600000 + 1000 + 55) * 16384


def test_processes_of_a_mac() -> None:
    found = {p["pid"]: (p["command"], p["mark"]) for p in probe.mac_processes(PS)}
    assert found == {1: ("launchd", ""), 812: ("raylet", "saf-1/head/n1"), 9001: ("-zsh", "")}


def test_variables_tell_no_secret() -> None:
    seen = probe.variables(
        {
            "RAY_AUTH_TOKEN": "s3cret",
            "RAY_AUTH_MODE": "token",
            "RAY_REDIS_PASSWORD": "s3cret",
            "HTTPS_PROXY": "http://user:s3cret@proxy",
            "no_proxy": "localhost",
            "PYTHONPATH": "/x",
            "HOME": "/root",
        }
    )
    assert seen == {
        "HTTPS_PROXY": None,
        "PYTHONPATH": None,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": None,
        "RAY_REDIS_PASSWORD": None,
        "no_proxy": "localhost",
    }


@given(st.dictionaries(st.text(), st.text(min_size=9)))
def test_no_other_variable_is_told(environ: dict[str, str]) -> None:
    assert all(name.startswith(("RAY_", "PYTHON")) for name in probe.variables(environ)) or any(
        name.lower().endswith("_proxy") for name in environ
    )


def test_distributions_are_known_by_their_metadata(tmp_path: Path) -> None:
    for name in ("Zope.Interface-5.0.dist-info", "old_style-1.egg-info", "plain", "x.py"):
        (tmp_path / name).mkdir()
    found = probe.distributions(str(tmp_path))
    assert found == [["zope-interface", "5.0"], ["old-style", "1"]]


def test_digests_in_two_threads_are_those_of_one(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(200)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes(number))
    missing = tmp_path / "missing"
    names = [str(path) for path in [*paths, missing]]
    found = probe.digests(names, [*(path.stat().st_size for path in paths), 2 << 20])
    assert found == {**{str(p): probe.file_digest(str(p)) for p in paths}, str(missing): None}


def test_it_runs_where_nothing_is_installed_and_on_python_3_9() -> None:
    tree = ast.parse(Path(probe.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = [
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    ]
    assert set(imported) <= sys.stdlib_module_names

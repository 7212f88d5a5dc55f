"""The parts of the probe that read text, without a process or a socket."""

from __future__ import annotations

import ast
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
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
            "RAY_AUTH_TOKEN_PATH": "/x/token",
            "grpc_proxy": "http://user:s3cret@proxy",
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
        "RAY_AUTH_TOKEN_PATH": "/x/token",
        "RAY_REDIS_PASSWORD": None,
        "grpc_proxy": None,
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


@pytest.mark.parametrize(
    ("environ", "mark"),
    [
        (b"A=b\0SAF_ENV_NODE=saf-1/head/run\0", "saf-1/head/run"),
        (b"SAF_ENV_CONTAINER=saf-1/box\0A=b", "saf-1/box/"),
        (b"SAF_ENV_CONTAINER=saf-1/box\0SAF_ENV_NODE=saf-2/head/run\0", "saf-2/head/run"),
        (b"SAF_ENV_NODES=saf-1/head/run\0X=SAF_ENV_NODE=saf-1/head/run", ""),
        (b"", ""),
    ],
)
def test_the_mark_of_a_process(environ: bytes, mark: str) -> None:
    assert probe.mark_in(environ) == mark


def test_raylets_in_our_containers_are_not_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {1: "saf-1/box/", 2: "saf-1/head/run", 3: "saf-11/box/", 4: ""}
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    monkeypatch.setattr(probe, "_sockets", lambda **_: {})
    monkeypatch.setattr(probe, "_open_sockets", lambda _: [])
    monkeypatch.setattr(probe, "_pids", lambda: [*marks])
    monkeypatch.setattr(
        probe, "_process", lambda pid: {"pid": pid, "command": "raylet", "mark": marks[pid]}
    )

    seen = probe.ray_processes({"cluster_id": "saf-1", "node": "box"})

    assert [p["pid"] for p in seen["ours"]] == [1]
    assert [p["pid"] for p in seen["kin"]] == [2]
    assert [p["pid"] for p in seen["others"]] == [3, 4]


def test_names_have_each_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"box.c.saf": ["127.0.0.2", "10.0.0.9", "127.0.0.2"]}

    def resolve(name: str, *_: object, **__: object) -> list[Any]:
        if name not in known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    seen = probe.names({"names": ["box.c.saf", "head.c.saf"]})
    assert seen["addresses"] == {"box.c.saf": ["10.0.0.9", "127.0.0.2"], "head.c.saf": []}


def test_a_name_service_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10) and [])
    monkeypatch.setattr(probe, "_NAME_SECONDS", 0.05)
    seen = probe.names({"names": ["a.c.saf", "b.c.saf"]})
    over.set()
    assert seen["addresses"] == {"a.c.saf": [], "b.c.saf": []}


def test_whether_names_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, writable in ((tmp_path, True), (tmp_path / "absent", False)):
        monkeypatch.setattr(probe, "HOSTS", str(folder / "hosts"))
        assert probe.names({"names": []}) == {"addresses": {}, "writable": writable}


@pytest.mark.parametrize(
    ("text", "commit"),
    [
        ("# By the wheel's build.\ncommit = \"" + "b7" * 20 + '"\nversion = "2.60.0"\n', "b7" * 20),
        ('commit = "{{RAY_COMMIT_SHA}}"\nversion = "3.0.0.dev0"\n', ""),
        (None, ""),
    ],
)
def test_what_ray_was_built_from(
    text: str | None, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_site_packages", lambda: str(tmp_path))
    if text is not None:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "_version.py").write_text(text)
    assert probe.ray_build({}) == {"commit": commit}


def test_nodes_beside_one_another_share_what_is_true_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[str] = []

    def processes() -> list[Any]:
        looks.append("")
        marks = ("saf-1/head/x", "saf-1/linux/x", "saf-2/other/x")
        return [{"pid": 10**9 + i, "command": "raylet", "mark": m} for i, m in enumerate(marks)]

    monkeypatch.setattr(probe, "_processes", processes)
    request = {"only": ["ray", "nofile"], "cluster_id": "saf-1", "node": "head"}
    seen = probe.gather({**request, "beside": {"linux": {"node": "linux"}, "n3": {"node": "n3"}}})
    answers = {"head": seen, **seen["beside"]}
    ours = {name: [p["mark"] for p in one["facts"]["ray"]["ours"]] for name, one in answers.items()}
    assert ours == {"head": ["saf-1/head/x"], "linux": ["saf-1/linux/x"], "n3": []}
    assert seen["facts"].keys() == {"ray", "nofile"}
    assert seen["beside"]["linux"]["facts"].keys() == {"ray"}
    assert len(looks) == 1

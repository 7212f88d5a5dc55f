"""Every check, judged from facts made by hand: no process, no socket, any platform."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, HostPlan, NodePlan, Ports
from saf_env.preflight import base, system
from saf_env.preflight.registry import CHECKS, judge, to_json

GIB = 2**30
SHA = "a" * 64
INTERPRETERS = {
    "linux-x86_64": Interpreter("linux-x86_64", "3.13.7", "system", "3.13.7 (main)", "", SHA),
    "macos-arm64": Interpreter("macos-arm64", "3.13.7", "managed", "20260814", "https://x", SHA),
}
UNAME = {"linux-x86_64": ("linux", "x86_64"), "macos-arm64": ("darwin", "arm64")}


def make_node(name: str, first: int, platform: str = "linux-x86_64", **changes: Any) -> NodePlan:
    lock = EnvironmentLock("base", (), "x", "d" * 64)
    environment = EnvironmentPlan(
        key="base-k",
        lock=lock,
        interpreter=INTERPRETERS[platform],
        packages={"numpy": "2.4.6", "ray": "2.60.0"},
        path=Path("/p/.saf/envs/base-k"),
        uv_version="0.13.9",
    )
    ports = Ports(
        node_manager=first + 4,
        object_manager=first + 5,
        runtime_env_agent=first + 6,
        dashboard_agent_listen=first + 7,
        dashboard_agent_grpc=first + 8,
        metrics_export=first + 9,
        min_worker=first + 12,
        max_worker=first + 19,
        gcs=first if name == "head" else None,
    )
    node = NodePlan(
        name=name,
        host="here",
        kind="native",
        fallback_reason="",
        role="head" if name == "head" else "worker",
        platform=platform,
        groups=(),
        address="127.0.0.2",
        advertise="127.0.0.2",
        network="host",
        ports=ports,
        cpus=1,
        gpus=None,
        memory=None,
        object_store_memory=None,
        resources={},
        labels={},
        variables={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/p/token"},
        environment=environment,
        image=None,
        fingerprint="f",
        temp_dir=Path("/tmp/saf-0123456789/0"),
    )
    return dataclasses.replace(node, **changes)


def host_of(node: NodePlan) -> HostPlan:
    return HostPlan(node.host, node.address, node.platform, "", None, Path("/p"))


def make_plan(*nodes: NodePlan) -> ClusterPlan:
    all_nodes = nodes or (make_node("head", 6380), make_node("linux", 6480))
    return ClusterPlan(
        name="local",
        home=Path("/p"),
        folder=Path("/tmp/saf-0123456789"),
        address="127.0.0.2:6380",
        lock_sha256="c" * 64,
        hosts={n.host: host_of(n) for n in all_nodes},
        nodes=all_nodes,
        interpreters={},
        driver=all_nodes[0].environment,
    )


def make_facts(node: NodePlan) -> dict[str, Any]:
    """Facts of a node that is exactly as planned."""
    env, (sys_platform, machine) = node.environment, UNAME[node.platform]
    packed = env.interpreter.source != "system"
    digest = "b" * 64 if packed else SHA
    marker = {
        "key": env.key,
        "environment_sha256": env.lock.sha256,
        "interpreter": dict(vars(env.interpreter)),
        "interpreter_digest": digest,
        "manifest_sha256": "e" * 64,
        "python_manifest_sha256": "5" * 64,
    }
    return {
        "schema": 1,
        "unknown": {},
        "user_variables": {},
        "facts": {
            "interpreter": {
                "implementation": "cpython",
                "version": env.interpreter.version,
                "build": "3.13.7 (main)",
                "machine": machine,
                "sys_platform": sys_platform,
                "executable": "/usr/bin/python3.13",
                "library": "",
                "digest": digest,
                "free_threaded": False,
                "debug": False,
                "translated": False,
            },
            "environment": {"path": str(env.path), "marker": marker, "system_site": False},
            "packages": [["numpy", "2.4.6"], ["ray", "2.60.0"]],
            "ray_build": {"commit": "7" * 40},
            "environments": [[env.key, env.lock.sha256]],
            "isolation": {"startup": [], "base": []},
            "files": {
                "files": 100,
                "hashed": 0,
                "manifest_sha256": "e" * 64,
                "changed": [0, []],
                "missing": [0, []],
                "foreign": [0, []],
            },
            "python_files": {
                "files": 50,
                "hashed": 0,
                "manifest_sha256": "5" * 64,
                "changed": [0, []],
                "missing": [0, []],
                "foreign": [0, []],
                "path": "/usr/lib/python3.13",
            },
            "platform": {
                "sys_platform": sys_platform,
                "machine": machine,
                "system": "OS 1",
                "version": "macOS 14.5" if sys_platform == "darwin" else "glibc 2.36",
                "translated": False,
                "hostname": node.host,
                "cpus": 2,
            },
            "clock": {"offset": 0.0, "within": 0.1},
            "memory": {"total": 64 * GIB, "available": 60 * GIB},
            "swap": {"total": 8 * GIB, "used": GIB},
            "disk": [{"purpose": "Ray", "path": "/tmp", "total": 100 * GIB, "free": 50 * GIB}],
            "shm": {"total": 32 * GIB, "free": 32 * GIB},
            "nofile": {"soft": 65536, "hard": None},
            "temp_dir": {
                "path": str(node.temp_dir.parent),
                "exists": True,
                "place": str(node.temp_dir.parent),
                "folder": True,
                "link": False,
                "mode": 0o700,
                "owner": 501,
                "uid": 501,
                "writable": True,
                "modules": [],
            },
            "uv": {"path": "/p/uv", "version": "0.13.9"},
            "token": {
                "path": "/p/token",
                "present": True,
                "uid": 501,
                "mode": 0o600,
                "owner": 501,
                "file": True,
                "link": False,
                "problems": [],
                "sha256": "9" * 64,
            },
            "ports": {"address": "127.0.0.2", "address_error": "", "held": []},
            "ray": {"ours": [], "kin": [], "others": []},
            "names": {"addresses": {}, "writable": True},
            "address": {
                "address": node.address,
                "resolved": [node.address],
                "own": [node.address],
                "outgoing": [],
                "default": "",
            },
            "tailnet": {"member": False, "command": "", "error": ""},
            "power": {"sleep": 0, "kept_by": []} if sys_platform == "darwin" else {},
            "firewall": {"on": False} if sys_platform == "darwin" else {},
            "metal": {"device": "Apple M3", "limit": None} if sys_platform == "darwin" else {},
            "filevault": {"on": False} if sys_platform == "darwin" else {},
        },
    }


def changed(facts: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """``facts`` with the value at a dotted path replaced."""
    result = copy.deepcopy(facts)
    *parents, last = path.split(".")
    inner = result if parents[:1] == ["user_variables"] else result["facts"]
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return result


def verdict(check: str, facts: dict[str, Any], node: NodePlan, **more: Any) -> base.Finding:
    plan = more.pop("plan", None) or make_plan(node)
    (found,) = judge(plan, node, facts, more.pop("reasons", ()), only=[check], **more)
    return found


@pytest.mark.parametrize("platform", INTERPRETERS)
def test_a_node_as_planned_passes_every_check(platform: str) -> None:
    node = make_node("head", 6380, platform)
    findings = judge(make_plan(node), node, make_facts(node), ())
    assert {f.level for f in findings} == {"ok"}, findings
    assert [f.id for f in findings] == [c.id for c in CHECKS if c.applies(node)]


HELD = {"port": 6380, "name": "gcs", "error": "in use", "pid": 7, "command": "redis", "mark": ""}
OURS = {**HELD, "command": "gcs_server", "mark": "saf-0123456789/head/n"}
PROCESS = {"pid": 7, "command": "raylet", "mark": "saf-0123456789/head/n", "ports": [6384]}

CASES = [
    # check, path of the fact, its value, level, words of the finding
    ("python-version", "interpreter.version", "3.13.6", "fail", "found cpython 3.13.6"),
    ("python-version", "interpreter.implementation", "pypy", "fail", "found pypy 3.13.7"),
    ("python-build", "interpreter.digest", "f" * 64, "fail", "digest ffffffffffff"),
    ("python-build", "interpreter.build", "3.13.7 (other)", "fail", "found 3.13.7 (other)"),
    ("python-build", "interpreter.free_threaded", True, "fail", "free-threaded"),
    ("python-isolated", "environment.system_site", True, "fail", "system's packages"),
    ("python-isolated", "isolation.startup", ["/s/evil.pth"], "fail", "/s/evil.pth"),
    ("python-isolated", "isolation.base", ["/l/sitecustomize.py"], "warn", "/l/sitecustomize.py"),
    ("python-isolated", "user_variables.PYTHONPATH", None, "warn", "PYTHONPATH"),
    ("packages-locked", "packages", [["ray", "2.60.0"]], "fail", "missing: numpy 2.4.6"),
    ("packages-locked", "packages", [["ray", "2"], ["numpy", "2.4.6"]], "fail", "ray 2 instead"),
    ("packages-locked", "environment.marker", None, "fail", "not made from this lock"),
    ("packages-extra", "packages", [["pip", "25"]], "fail", "pip 25"),
    ("packages-extra", "files.foreign", [1, ["x.py"]], "fail", "x.py"),
    ("packages-intact", "files.changed", [1, ["six.py"]], "fail", "changed: six.py"),
    ("packages-intact", "files.missing", [9, ["a"]], "fail", "9 of 100 files"),
    ("packages-intact", "files.manifest_sha256", "0", "fail", "manifest"),
    ("uv-version", "uv.version", "0.13.8", "fail", "found 0.13.8"),
    ("platform", "platform.machine", "aarch64", "fail", "found linux aarch64"),
    ("disk", "disk", [{"purpose": "Ray", "path": "/", "total": GIB, "free": 9}], "fail", "1 GiB"),
    (
        "disk",
        "disk",
        [{"purpose": "Ray", "path": "/", "total": 100 * GIB, "free": 4 * GIB}],
        "warn",
        "95 %",
    ),
    ("shm", "shm", {"total": 2**26, "free": 2**26}, "warn", "0.1 GiB there"),
    ("nofile", "nofile.hard", 20000, "warn", "20000"),
    ("nofile", "nofile.hard", 256, "fail", "hard limit"),
    ("nofile", "nofile.hard", 65536, "ok", "limit 65536"),
    ("temp-dir", "temp_dir.mode", 0o755, "fail", "rwxr-xr-x"),
    ("temp-dir", "temp_dir.owner", 0, "fail", "belongs to user 0"),
    ("temp-dir", "temp_dir.link", True, "fail", "a link"),
    ("temp-dir", "temp_dir.writable", False, "fail", "not writable"),
    ("stale-ray", "ray.ours", [PROCESS], "fail", "saf-env down head"),
    ("stale-ray", "ray.others", [{**PROCESS, "mark": ""}], "warn", "ports 6384"),
    ("environment-variables", "user_variables.RAY_AUTH_MODE", "Token1", "fail", "Token1"),
    ("environment-variables", "user_variables.RAY_AUTH_MODE", "token", "ok", ""),
    ("environment-variables", "user_variables.RAY_AUTH_TOKEN", None, "fail", "RAY_AUTH_TOKEN"),
    ("environment-variables", "user_variables.RAY_USE_TLS", "yes", "fail", "RAY_USE_TLS=yes"),
    (
        "environment-variables",
        "user_variables.RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL",
        "minor",
        "fail",
        "loosens",
    ),
    ("environment-variables", "user_variables.RAY_ADDRESS", "auto", "warn", "RAY_ADDRESS"),
    ("environment-variables", "user_variables.http_proxy", None, "warn", "127.0.0.2"),
    ("ports-free", "ports.held", [HELD], "fail", "6380 (gcs): held by redis, pid 7"),
    ("ports-free", "ports.held", [OURS], "fail", "gcs_server"),
    ("ports-free", "ports.address_error", "no such address", "fail", "127.0.0.2 is not"),
    ("token", "token.present", False, "fail", "--fix"),
    ("token", "token.mode", 0o644, "fail", "0644"),
    ("token", "token.owner", 0, "fail", "belongs to user 0"),
    ("token", "token.link", True, "fail", "plain file"),
    ("token", "token.problems", ["it is empty"], "fail", "it is empty"),
]


@pytest.mark.parametrize(("check", "path", "value", "level", "words"), CASES)
def test_each_fault_is_found(check: str, path: str, value: object, level: str, words: str) -> None:
    node = make_node("head", 6380)
    found = verdict(check, changed(make_facts(node), path, value), node)
    assert found.level == level
    assert words in f"{found.summary} {found.evidence} {found.hint}"
    assert level in ("ok",) or found.hint


def test_an_absent_environment_is_one_failure_and_skips() -> None:
    node = make_node("head", 6380)
    facts = make_facts(node)
    for name in ("interpreter", "environment", "packages", "isolation", "files", "python_files"):
        del facts["facts"][name]
        facts["unknown"][name] = "there is no such file"
    levels = {f.id: f.level for f in judge(make_plan(node), node, facts, ())}
    assert [check for check, level in levels.items() if level == "fail"] == ["packages-locked"]
    assert levels["python-build"] == "skip"
    assert verdict("python-build", facts, node).evidence == "there is no such file"


def test_a_manifest_that_is_gone_is_a_failure() -> None:
    node = make_node("head", 6380)
    facts = make_facts(node)
    del facts["facts"]["files"]
    assert verdict("packages-intact", facts, node).level == "fail"


def test_our_own_running_node_is_in_order() -> None:
    node = make_node("head", 6380)
    held = changed(make_facts(node), "ports.held", [OURS, {k: OURS[k] for k in ("port", "name")}])
    assert verdict("ports-free", held, node, running=True).level == "ok"
    foreign = changed(make_facts(node), "ports.held", [HELD])
    assert verdict("ports-free", foreign, node, running=True).level == "fail"
    up = changed(make_facts(node), "ray.ours", [PROCESS])
    assert verdict("stale-ray", up, node, running=True).level == "ok"


def test_memory_of_a_node_and_of_its_host() -> None:
    greedy = make_node("head", 6380, memory=50 * GIB, object_store_memory=20 * GIB)
    found = verdict("memory", make_facts(greedy), greedy)
    assert (found.level, found.summary) == ("fail", "70.0 GiB are planned for the node")
    half = make_node("head", 6380, memory=40 * GIB)
    other = make_node("linux", 6480, memory=40 * GIB)
    found = verdict("memory", make_facts(half), half, plan=make_plan(half, other))
    assert "nodes head, linux together" in found.summary
    assert verdict("memory", make_facts(half), half, running=True).level == "ok"


def test_shared_memory_of_a_planned_store() -> None:
    small = make_node("head", 6380, object_store_memory=GIB)
    facts = changed(make_facts(small), "shm", {"total": 2 * GIB, "free": 2 * GIB})
    assert verdict("shm", facts, small).level == "ok"


def test_a_stale_lock() -> None:
    node = make_node("head", 6380)
    found = verdict("lock-fresh", make_facts(node), node, reasons=["nodes.head.groups: changed"])
    assert (found.level, found.evidence) == ("fail", "nodes.head.groups: changed")


@pytest.mark.parametrize("value", ["127.0.0.2", "127.0.0.0/8", "x, *", "localhost,127.0.0.2"])
def test_a_proxy_that_spares_the_nodes(value: str) -> None:
    node = make_node("head", 6380)
    facts = make_facts(node)
    facts["user_variables"] = {"https_proxy": None, "no_proxy": value}
    assert verdict("environment-variables", facts, node).level == "ok"


def test_socket_paths_at_the_limit_of_each_system() -> None:
    for platform, limit in (("linux-x86_64", 107), ("macos-arm64", 103)):
        room = limit - len(system.SOCKET_TAIL)
        for length, level in ((room, "ok"), (room + 1, "fail")):
            path = Path("/" + "x" * (length - 3) + "/0")
            node = make_node("head", 6380, platform, temp_dir=path)
            assert len(str(path)) == length
            assert verdict("temp-dir", make_facts(node), node).level == level


def test_ignored_failures_become_warnings_that_say_so() -> None:
    node = make_node("head", 6380)
    facts = changed(make_facts(node), "token.present", False)
    found = verdict("token", facts, node, ignore=["token"])
    assert (found.level, found.summary) == ("warn", "there is no token (ignored as asked)")
    assert verdict("platform", facts, node, ignore=["platform"]).level == "ok"


def test_a_fault_of_a_check_is_a_bug_and_surfaces() -> None:
    node = make_node("head", 6380)
    with pytest.raises(KeyError):
        verdict("nofile", changed(make_facts(node), "nofile", {}), node)


def test_json_is_as_its_schema_says() -> None:
    schema = json.loads((Path(base.__file__).parents[1] / "schemas" / "check.json").read_text())
    node = make_node("head", 6380)
    good = to_json(judge(make_plan(node), node, make_facts(node), ()))
    bad = to_json(judge(make_plan(node), node, make_facts(node), ["it is old"]))
    for value in (good, bad):
        jsonschema.validate(json.loads(json.dumps(value)), schema)
    assert (good["ok"], bad["ok"]) == (True, False)

"""Five Macs, as facts. No Mac was at hand: what their programs print is put together.

From documentation: the fields of ``pmset -g custom`` and ``-g assertions`` (pmset(1) and published
outputs of macOS 14 and 15); those of ``docker info`` (its JSON, and what Docker Desktop, OrbStack
and Colima call themselves there); ``ioreg`` and ``sysctl vm.swapusage``. From published scripts,
which compare with these very words: ``socketfilterfw --getglobalstate``, ``--getblockall``,
``--getstealthmode``, ``fdesetup status``. By memory alone: ``--getappblocked``. Numbers of CPUs and
bytes are those of the machines.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from saf_env import probe
from saf_env.engine import read_info
from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.transports.base import CommandResult
from tests.unit.preflight.test_checks import make_facts, make_node, make_plan
from tests.unit.preflight.test_docker import make_container, make_container_facts

GIB = 2**30

PMSET = """\
AC Power:
 Sleep On Power Button 1
 autorestart          0
 powernap             1
 standby              0
 networkoversleep     0
 disksleep            10
 sleep                {minutes}
 ttyskeepawake        1
 displaysleep         10
 womp                 1
 tcpkeepalive         1
"""
PMSET_LAPTOP = "Battery Power:\n sleep                1\n displaysleep         2\n" + PMSET

ASSERTIONS = """\
2026-01-02 13:20:57 +0100
Assertion status system-wide:
   BackgroundTask                 0
   ApplePushServiceTask           0
   UserIsActive                   1
   PreventUserIdleDisplaySleep    0
   PreventSystemSleep             0
   ExternalMedia                  0
   PreventUserIdleSystemSleep     1
   NetworkClientActive            0
Listed by owning process:
   pid 145(WindowServer): [0x00044f2f00099212] 00:00:00 UserIsActive named: "com.apple.iohid"
\tTimeout will fire in 600 secs Action=TimeoutActionRelease
   pid 80(powerd): [0x00044f2f00019216] 00:22:34 PreventUserIdleSystemSleep named: "Powerd - \
Prevent sleep while display is on"
"""
CAFFEINATE = """\
   pid 98217(caffeinate): [0x00045477000194b3] 00:00:03 PreventUserIdleSystemSleep named: \
"caffeinate command-line tool"
\tDetails: caffeinate asserting on behalf of Process ID 98216
\tLocalized=THE CAFFEINATE TOOL IS PREVENTING SLEEP.
"""

FIREWALL_OFF = "Firewall is disabled. (State = 0)\n"
FIREWALL_ON = "Firewall is enabled. (State = 1)\n"
FIREWALL_BLOCKS = "Firewall is blocking all non-essential incoming connections. (State = 2)\n"
BLOCK_ALL_OFF = ("Block all DISABLED! \n", "Firewall has block all state set to disabled.\n")
BLOCK_ALL_ON = ("Block all ENABLED! \n", "Firewall has block all state set to enabled.\n")
STEALTH_OFF = ("Stealth mode disabled\n", "Firewall stealth mode is off\n")
STEALTH_ON = ("Stealth mode enabled\n", "Firewall stealth mode is on\n")

# Of ``ioreg -r -d 1 -w 0 -c IOAccelerator``, and of ``sysctl vm.swapusage`` in two locales.
IOREG = """\
+-o AGXAcceleratorG15X_B0  <class AGXAcceleratorG15X_B0, id 0x100000a2b, registered, matched, \
active, busy 0 (0 ms), retain 75>
    {
      "IOClass" = "AGXAcceleratorG15X"
      "gpu-core-count" = 60
      "model" = "Apple M3 Ultra"
      "vendor-id" = <6b100000>
    }
"""
SWAP_USAGE = (
    "total = 3072.00M  used = 2014.25M  free = 1057.75M  (encrypted)\n",
    "total = 3072,00M  used = 2014,25M  free = 1057,75M  (encrypted)\n",
)
FILEVAULT = {"FileVault is On.\n": True, "FileVault is Off.\n": False}

PYTHON = "/Users/me/studio/.saf/python/cpython-3.13.7-macos-aarch64-none/bin/python3.13"
RAYLET = "/Users/me/studio/.saf/envs/base-k/lib/python3.13/site-packages/ray/core/src/ray/raylet"

DOCKER_DESKTOP = {
    "ServerVersion": "28.2.2",
    "OperatingSystem": "Docker Desktop",
    "Name": "docker-desktop",
    "KernelVersion": "6.10.14-linuxkit",
    "Architecture": "aarch64",
    "NCPU": 28,
    "MemTotal": 8217464832,
    "DockerRootDir": "/var/lib/docker",
    "SecurityOptions": ["name=seccomp,profile=unconfined", "name=cgroupns"],
}
ORBSTACK = {
    **DOCKER_DESKTOP,
    "OperatingSystem": "OrbStack",
    "Name": "orbstack",
    "KernelVersion": "6.14.10-orbstack-00291-g1b252bd3edea",
    "NCPU": 12,
    "MemTotal": 50463096832,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
}
COLIMA = {
    **DOCKER_DESKTOP,
    "OperatingSystem": "Ubuntu 24.04.2 LTS",
    "Name": "colima",
    "KernelVersion": "6.8.0-64-generic",
    "NCPU": 2,
    "MemTotal": 2057744384,
}


def power(minutes: int = 0, *, caffeinate: bool = False) -> dict[str, Any]:
    """The fact ``power`` of a Mac that sleeps after ``minutes``."""
    assertions = ASSERTIONS + (CAFFEINATE if caffeinate else "")
    custom = PMSET.format(minutes=minutes)
    return {"sleep": probe.mains_sleep(custom), "kept_by": probe.kept_awake_by(assertions)}


def firewall(**changes: Any) -> dict[str, Any]:
    """The fact ``firewall`` of a Mac where it is on and knows nobody."""
    programs = [[PYTHON, False], [f"{RAYLET}/raylet", False]]
    return {"on": True, "block_all": False, "stealth": False, "programs": programs, **changes}


def docker(info: dict[str, Any]) -> dict[str, Any]:
    """The fact ``docker``, without images, of an engine that says ``info`` of itself."""
    plugins = [{"Name": name, "Version": "v2.36.2"} for name in ("compose", "buildx")]
    client = {"ClientInfo": {"Version": "28.2.2", "Plugins": plugins}}
    said = json.dumps({**info, **client})
    seen = read_info(CommandResult(("docker",), "alpha", 0, said, "", 0.1))
    del seen["root"]
    endpoint = "unix:///Users/me/.docker/run/docker.sock"
    without = {"compose_alone": "", "disk": None, "base": None, "running": ""}
    return {**seen, "endpoint": endpoint, **without}


def with_mlx(node: NodePlan) -> NodePlan:
    """``node``, its environment planned with MLX."""
    packages = {"mlx": "0.32.4", **node.environment.packages}
    environment = dataclasses.replace(node.environment, packages=packages)
    return dataclasses.replace(node, environment=environment)


def mac(**facts: Any) -> tuple[NodePlan, dict[str, Any]]:
    """A native node with MLX on a Mac, and its facts where ``facts`` are other than usual."""
    node = with_mlx(make_node("head", 6380, "macos-arm64"))
    seen = make_facts(node)
    seen["facts"]["packages"] = [*map(list, node.environment.packages.items())]
    seen["facts"]["platform"].update(system="Darwin 24.5.0", hostname="Mac-Studio.local", cpus=28)
    for name, value in facts.items():
        seen["facts"][name] = {**seen["facts"][name], **value}
    return node, seen


def with_box(info: dict[str, Any], **box: Any) -> tuple[ClusterPlan, NodePlan, dict[str, Any]]:
    """A Mac's plan with a container, that node, and its facts with the engine of ``info``."""
    head, host = mac()
    node = dataclasses.replace(make_container(**box), platform="linux-arm64")
    facts = make_container_facts(make_container())
    image = facts["facts"]["docker"]["image"]
    facts["facts"]["docker"] = {**docker(info), "image": {**image, "architecture": "arm64"}}
    facts["facts"]["platform"] = {**facts["facts"]["platform"], "machine": "aarch64"}
    facts["facts"]["interpreter"]["machine"] = "aarch64"
    facts["facts"]["host"] = host["facts"]["platform"]
    for name in ("power", "firewall", "metal", "filevault"):
        facts["facts"][name] = host["facts"][name]
    plan = make_plan(head, node)
    studio = dataclasses.replace(plan.hosts["here"], platform="macos-arm64")
    return dataclasses.replace(plan, hosts={"here": studio}), node, facts


M3_ULTRA = {
    "memory": {"total": 512 * GIB, "available": 431 * GIB},
    "power": power(0),
    "swap": probe.swap_usage(SWAP_USAGE[0]),
    "metal": {"device": probe.gpu_name(IOREG), "limit": None},
}
M2_MAX = {"memory": {"total": 96 * GIB, "available": 70 * GIB}, "platform": {"cpus": 12}}
ROSETTA = {
    "platform": {"machine": "x86_64", "translated": True},
    "interpreter": {"machine": "x86_64", "translated": True},
}
SLEEPY = {"power": power(1)}
WALLED = {"firewall": firewall(stealth=True)}
VENTURA = {"platform": {"version": "macOS 13.7.6", "system": "Darwin 22.6.0"}}

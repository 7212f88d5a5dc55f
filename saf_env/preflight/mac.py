"""Checks of Macs: that one does not fall asleep, and lets the other nodes in."""

from __future__ import annotations

import shlex

from saf_env.plan.model import NodePlan
from saf_env.platforms import PLATFORMS
from saf_env.preflight.base import Case, Check, Verdict, fail, gib, in_container, listed, ok, warn

GPU_SHARE = 0.75
"""Of its memory, what macOS lets the GPU use at most where nothing is set."""

_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"
_SETTINGS = "System Settings > Network > Firewall"


def sleep(case: Case) -> Verdict:
    """A Mac on mains power stays awake."""
    if not case.on_mac:
        return ok("not a Mac")
    seen = case.facts["facts"].get("power")
    remedy = "`sudo pmset -c sleep 0` keeps it awake on mains power"
    if not seen or seen["sleep"] is None:
        reason = case.facts["unknown"].get("power", "pmset does not tell")
        return warn("whether the Mac sleeps is not known", reason, remedy)
    if not seen["sleep"]:
        return ok("it never sleeps on mains power")
    after = f"system sleep after {seen['sleep']} min on mains power"
    if "caffeinate" in seen["kept_by"]:
        return ok("caffeinate keeps it awake", after)
    if in_container(case.node):
        return warn("the Mac falls asleep when nobody uses it, nodes and all", after, remedy)
    return warn(
        "the Mac falls asleep when nobody uses it",
        after,
        f"saf-env keeps it awake only while a native node runs, so it may be out of reach before: "
        f"{remedy}",
    )


def firewall(case: Case) -> Verdict:
    """The Mac's firewall lets other nodes in."""
    if not case.on_mac:
        return ok("not a Mac")
    seen = case.facts["facts"].get("firewall")
    if not seen:
        reason = case.facts["unknown"].get("firewall", "the probe did not look")
        return warn("whether the firewall lets nodes in is not known", reason, f"see {_SETTINGS}")
    if not seen["on"]:
        return ok("the firewall is off")
    if seen["block_all"] is not False:
        return _blocks_all(certain=bool(seen["block_all"]))
    shut = [path for path, let_in in seen["programs"] if not let_in]
    stealth = "; in stealth mode, it does not answer a ping" if seen["stealth"] else ""
    if in_container(case.node) or (seen["programs"] and not shut):
        return ok("the firewall is on, and lets the node's programs in", stealth.lstrip("; "))
    return warn(
        "the firewall may keep other nodes out",
        (f"not let in so far: {listed(shut)}" if shut else "it is on") + stealth,
        _let_in(shut) or "once the environment is there, check again: its programs can be let in",
    )


def _blocks_all(*, certain: bool) -> Verdict:
    if certain:
        return fail(
            "the firewall blocks all incoming connections",
            f"{_SETTINGS} > Options",
            f"`sudo {_FIREWALL} --setblockall off`, or switch it off there",
        )
    return warn(
        "whether the firewall blocks all incoming connections is not known",
        "it is on, and does not tell",
        f"see {_SETTINGS} > Options",
    )


def _let_in(programs: list[str]) -> str:
    if not programs:
        return ""
    each = f'sudo {_FIREWALL} --add "$p"; sudo {_FIREWALL} --unblockapp "$p"'
    return f"let them in: `for p in {shlex.join(programs)}; do {each}; done`"


def metal(case: Case) -> Verdict:
    """MLX has a GPU, which may use as much memory as the node is planned with."""
    seen, total = case.fact("metal"), case.fact("memory")["total"]
    if not seen["device"]:
        return warn(
            "no GPU was found",
            "ioreg lists none",
            "run the node on the Mac itself, not in a virtual machine on it; "
            "`system_profiler SPDisplaysDataType` lists GPUs",
        )
    limit = seen["limit"] or int(GPU_SHARE * total)
    told = f"{seen['device']} may use {gib(limit)}" + ("" if seen["limit"] else " or so")
    wanted = case.node.memory or 0
    if wanted > limit:
        return warn(
            f"{gib(wanted)} are planned for the node, more than its GPU may use",
            told,
            "lower memory of the node in the cluster file, or "
            f"`sudo sysctl iogpu.wired_limit_mb={wanted >> 20}` (until the Mac restarts)",
        )
    return ok("a GPU for MLX", told)


def filevault_boot(case: Case) -> Verdict:
    """A Mac on another desk comes back by itself after a restart."""
    if not case.on_mac:
        return ok("not a Mac")
    if not case.fact("filevault")["on"]:
        return ok("its disk is not locked: it starts by itself")
    if case.cluster.host_of(case.node).here:
        return ok("its disk is locked after a restart, and this is the Mac you are at")
    return warn(
        "after a restart nobody reaches the Mac until its disk is unlocked",
        "FileVault is on",
        "log in on its own screen then; `sudo fdesetup authrestart` restarts it once without that",
    )


def _with_mlx(node: NodePlan) -> bool:
    mac = node.kind == "native" and PLATFORMS[node.platform].os == "macos"
    return mac and "mlx" in node.environment.packages


CHECKS = (
    Check(
        "sleep",
        "node",
        "warn",
        "a Mac that stays awake",
        sleep,
        "A Mac that sleeps takes its nodes out of the cluster, and is not reached by ssh. While a "
        "native node runs, saf-env holds it awake with caffeinate, as long as it has mains power. "
        "Looked at is the time to system sleep on mains power, and whether caffeinate is at work.",
        "`sudo pmset -c sleep 0` keeps a Mac awake on mains power.",
    ),
    Check(
        "firewall",
        "node",
        "fail",
        "a Mac whose firewall lets nodes in",
        firewall,
        "The application firewall of macOS asks on the screen whether a program may be connected "
        "to, and over ssh nobody answers. Blocking all connections is a failure; a firewall that "
        "is on and does not know the locked Python, Ray's raylet and gcs_server, or does not tell "
        "whether it blocks all, is a warning.",
        "Let the named programs in by the command that is shown, or in System Settings > Network "
        "> Firewall.",
    ),
    Check(
        "metal",
        "node",
        "warn",
        "a GPU for MLX",
        metal,
        "Of a native node on a Mac whose environment has MLX. Without a GPU, as in a virtual "
        "machine, MLX computes on the CPU. The GPU uses the Mac's own memory, up to a limit: "
        "iogpu.wired_limit_mb, or about three quarters while macOS decides. More memory planned "
        "for the node than that is a warning.",
        "Run the node on the Mac itself; lower memory of the node in the cluster file, or raise "
        "the limit: `sudo sysctl iogpu.wired_limit_mb=MIB`.",
        _with_mlx,
    ),
    Check(
        "filevault-boot",
        "node",
        "warn",
        "a Mac that comes back after a restart",
        filevault_boot,
        "With FileVault a Mac waits for a password after every restart, also one by a power cut or "
        "an update, before its network is up: no ssh, no service. Looked at is what `fdesetup "
        "status` says, on Macs that are reached by ssh.",
        "`sudo fdesetup authrestart` for a restart that is meant. Whether the disk of a Mac that "
        "nobody else can touch has to be encrypted is for you to say.",
    ),
)

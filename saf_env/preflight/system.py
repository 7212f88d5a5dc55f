"""Checks of the machine: platform, memory, disks, limits, the temp dir, other Rays, variables."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any

from saf_env.plan.build import token_path
from saf_env.plan.model import NodePlan
from saf_env.platforms import PLATFORMS
from saf_env.preflight.base import (
    Case,
    Check,
    UnknownFactError,
    Verdict,
    fail,
    gib,
    in_container,
    listed,
    ok,
    warn,
)
from saf_env.probe import PROXIES
from saf_env.spec.rules import NODE_PORTS, SPARE_PORTS

NOFILE_WANTED, NOFILE_NEEDED = 65536, 4096
DISK_NEEDED = 2**30
DISK_FREE_SHARE = 0.05
"""Ray stops placing objects on a disk that is 95 % full (``local_fs_capacity_threshold``)."""
SHM_SHARE = 0.3
"""Ray's object store takes this share of memory (``DEFAULT_OBJECT_STORE_MEMORY_PROPORTION``)."""
CONTAINER_ROOM = 2**29
"""Bytes: Ray's own processes take 0.25 GiB in a worker's container, twice that in a head's."""
SOCKET_TAIL = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"
"""Ray's longest socket below its temp dir, with the largest process id of Linux."""


def platform(case: Case) -> Verdict:
    """The platform that the plan names."""
    seen, wanted = case.fact("platform"), PLATFORMS[case.node.platform]
    found = (seen["sys_platform"], seen["machine"])
    if found == (wanted.sys_platform, wanted.machine):
        return ok(wanted.name, seen["system"])
    expected = f"expected {wanted.name}, found {' '.join(found)}"
    if seen["translated"]:
        return fail(
            "another platform: the Mac translates Python (Rosetta)",
            expected,
            "run saf-env by a Python for Apple's processors, where `arch` prints arm64",
        )
    return fail(
        "another platform",
        expected,
        f"correct the platform of host {case.node.host} in the cluster file, then `saf-env lock`",
    )


def worker_ports(case: Case) -> Verdict:
    """Ports for a worker on every CPU, with a few to spare."""
    ports, cpus = case.node.ports, case.node.cpus
    count = ports.max_worker - ports.min_worker + 1
    wanted = case.fact("platform")["cpus"] if cpus is None else cpus
    evidence = f"{wanted} CPUs, {count} ports for workers and drivers"
    if wanted <= count - SPARE_PORTS:
        return ok("a port for a worker on every CPU", evidence)
    return warn(
        "more CPUs than ports for their workers",
        evidence,
        f"set cluster.ports_per_node to {wanted + NODE_PORTS + SPARE_PORTS} or more, or cpus of "
        f"the node to {count - SPARE_PORTS}: work that gets no port waits for ever",
    )


def _promised(node: NodePlan) -> int:
    """Bytes. What a container may use is its memory, its object store included."""
    if node.kind == "container":
        return node.memory or node.object_store_memory or 0
    return (node.memory or 0) + (node.object_store_memory or 0)


def _elsewhere(case: Case) -> bool:
    """Whether the node is in a machine of its engine's own, whose memory is not the host's."""
    docker = case.facts["facts"].get("docker", {})
    return in_container(case.node) and docker.get("memory") != case.fact("memory")["total"]


def memory(case: Case) -> Verdict:
    """What the plan promises to Ray is there, for this node and for all on its host."""
    node, promised = case.node, _promised(case.node)
    store, limit = node.object_store_memory, node.memory
    if in_container(node) and store is not None and limit is not None and store >= limit:
        return fail(
            "the object store takes all of the container's memory",
            f"{gib(store)} of {gib(limit)}",
            "lower object_store_memory of the node in the cluster file, or raise its memory",
        )
    on_host = [node for node in case.cluster.nodes if node.host == case.node.host]
    together = sum(_promised(node) for node in on_host)
    if not together and "memory" not in case.facts["facts"]:
        return ok("Ray chooses its share")  # nothing is promised that could be missing
    seen = case.fact("memory")
    # What runs already has taken its share, so only the whole can be compared.
    free = seen["total"] if case.running or _elsewhere(case) else seen["available"]
    evidence = f"{gib(seen['available'])} available of {gib(seen['total'])}"
    hint = "lower memory or object_store_memory of the node in the cluster file, or free memory"
    if promised > free:
        return fail(f"{gib(promised)} are planned for the node", evidence, hint)
    if together > seen["total"]:
        names = listed([node.name for node in on_host])
        return fail(f"{gib(together)} are planned for nodes {names} together", evidence, hint)
    return ok(f"{gib(promised)} planned" if promised else "Ray chooses its share", evidence)


def disk(case: Case) -> Verdict:
    """Space where the environment, Ray's temp dir and a container's engine are."""
    places, low, tight = [*case.fact("disk")], [], []
    if in_container(case.node) and (engine := case.facts["facts"].get("docker", {}).get("disk")):
        places.append({**engine, "purpose": "the Docker engine"})
    for place in places:
        text = f"{gib(place['free'])} free of {gib(place['total'])} for {place['purpose']}"
        text += f" ({place['path']})"
        if place["free"] < DISK_NEEDED:
            low.append(text)
        elif place["free"] < DISK_FREE_SHARE * place["total"]:
            tight.append(text)
    if low:
        return fail("less than 1 GiB of disk", listed(low), "free space on that disk")
    if tight:
        return warn(
            "a disk is more than 95 % full",
            listed(tight),
            "free space: Ray puts no objects on such a disk",
        )
    return ok("disk", f"{gib(min(place['free'] for place in places))} free at least")


def shm(case: Case) -> Verdict:
    """Shared memory for Ray's object store, on Linux."""
    if in_container(case.node):
        return _shm_of_container(case)
    if PLATFORMS[case.node.platform].os != "linux":
        return ok("not used on this platform")
    seen = case.fact("shm")
    wanted = case.node.object_store_memory or int(SHM_SHARE * case.fact("memory")["total"])
    room = seen["total"] if case.running else seen["free"]
    if room >= wanted:
        return ok(f"{gib(room)} of shared memory")
    return warn(
        "Ray's object store does not fit in /dev/shm and will use the slower /tmp",
        f"{gib(wanted)} wanted, {gib(room)} there",
        "enlarge /dev/shm (`mount -o remount,size=…`), or set object_store_memory of the node",
    )


def _shm_of_container(case: Case) -> Verdict:
    """A container gets what the plan says, and it counts as its memory."""
    store = case.node.object_store_memory or 0
    docker = case.fact("docker")
    if docker["error"]:
        raise UnknownFactError(docker["error"])
    room = docker["memory"] if case.node.memory is None else case.node.memory
    if store + CONTAINER_ROOM <= room:
        return ok(f"{gib(store)} of shared memory of its own")
    return warn(
        "the object store leaves little memory in the container",
        f"{gib(store)} of {gib(room)}; Ray's own processes need {gib(CONTAINER_ROOM)}",
        "lower object_store_memory of the node in the cluster file, or raise its memory",
    )


def nofile(case: Case) -> Verdict:
    """Open files: Ray keeps several per worker and connection."""
    seen = case.fact("nofile")["hard"]  # saf-env raises the soft limit of its nodes up to this
    if seen is None or seen >= NOFILE_WANTED:
        return ok("open files", "no limit" if seen is None else f"limit {seen}")
    hint = f"raise the hard limit of open files to {NOFILE_WANTED} (limits.conf, or launchd's)"
    if seen < NOFILE_NEEDED:
        return fail(f"at most {seen} open files", f"at least {NOFILE_NEEDED} are needed", hint)
    return warn(f"at most {seen} open files", f"{NOFILE_WANTED} are wanted for many workers", hint)


def temp_dir(case: Case) -> Verdict:
    """Short enough for sockets, ours alone, writable."""
    seen, limit = case.fact("temp_dir"), PLATFORMS[case.node.platform].socket_path_limit
    path = seen["path"]
    length = len((str(case.node.temp_dir) + SOCKET_TAIL).encode())
    if length > limit:
        return fail(
            "the temp dir's path is too long for Ray's sockets",
            f"{length} bytes with Ray's own part, {limit} are possible: {case.node.temp_dir}",
            "give the cluster a shorter name or the host a shorter temp dir",
        )
    if not seen["folder"] or not seen["writable"] or seen["link"]:
        kind = (
            "a link" if seen["link"] else "not a folder" if not seen["folder"] else "not writable"
        )
        return fail("the temp dir cannot be used", f"{seen['place']} is {kind}", f"remove {path}")
    if seen["exists"] and (seen["owner"] != seen["uid"] or seen["mode"] & 0o077):
        return fail(
            "others may write in the temp dir",
            f"{path} belongs to user {seen['owner']}, mode {stat.filemode(seen['mode'])[1:]}",
            f"look at what is in it, then remove {path}",
        )
    if seen["modules"] and case.node.kind == "native":
        return fail(
            "modules in the temp dir, where the node is started, would be taken for locked ones",
            listed(seen["modules"]),
            "look at what they are, then remove them",
        )
    return ok(f"{path}", f"{limit - length} bytes to spare for sockets")


def stale_ray(case: Case) -> Verdict:
    """No Ray of this node that state does not know; somebody else's is told."""
    seen = case.fact("ray")
    if seen["ours"] and not case.running:
        found = [f"{p['command']} (pid {p['pid']})" for p in seen["ours"]]
        return fail(
            "processes of an earlier start of this node are still there",
            listed(found),
            f"run `saf-env down {case.node.name}`",
        )
    planned = {node.name for node in case.cluster.nodes}
    gone = [p for p in seen["kin"] if p["mark"].split("/")[1] not in planned]
    if gone:
        found = [f"{p['command']} of {p['mark'].split('/')[1]} (pid {p['pid']})" for p in gone]
        return warn("a node that has left the plan still runs", listed(found), _STOPS)
    if seen["others"]:
        found = [f"{p['command']} (pid {p['pid']}, ports {_ports(p)})" for p in seen["others"]]
        return warn("another Ray runs on this host", listed(found, 2), "saf-env leaves it alone")
    return ok("this node's own processes" if case.running else "no other Ray")


_STOPS = "`saf-env up` stops it, and `saf-env down` with all others"


def _ports(process: Mapping[str, Any]) -> str:
    return " ".join(str(port) for port in process["ports"]) or "unknown"


def environment_variables(case: Case) -> Verdict:
    """Variables in the user's shell that contradict the plan, or would catch the nodes' traffic."""
    seen: Mapping[str, str | None] = case.facts["user_variables"]
    wrong = [text for name, value in seen.items() if (text := _contradiction(case, name, value))]
    unset = [name for name in seen if _contradiction(case, name, seen[name])]
    if wrong:
        return fail("variables contradict the plan", "; ".join(wrong), f"unset {' '.join(unset)}")
    proxies = [name for name in seen if name.lower() in PROXIES]
    excluded = seen.get("no_proxy") or seen.get("NO_PROXY") or ""
    reached = {name for n in case.cluster.nodes for name in (n.address, n.advertise)}
    caught = sorted(name for name in reached if not _exempt(name, excluded))
    if proxies and caught:
        return warn(
            f"{' and '.join(proxies)} would catch traffic to the nodes",
            f"no_proxy does not name {listed(caught)}",
            f"add {','.join(caught)} to no_proxy",
        )
    others = [name for name in seen if name.startswith("RAY_") and name not in case.node.variables]
    if others:
        return warn(
            "Ray variables that the plan does not have",
            listed(others),
            "saf-env's nodes do not get them, drivers of yours do; unset what is not wanted",
        )
    return ok("no variable contradicts the plan")


def _contradiction(case: Case, name: str, value: str | None) -> str:
    """Why the variable cannot stay, or ``""``."""
    planned = case.node.variables.get(name)
    if name == "RAY_AUTH_TOKEN_PATH":  # the shell's is for drivers on the host
        planned = str(token_path(case.cluster.home, case.cluster.name))
    if not name.startswith("RAY_"):
        return ""
    if name == "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL":
        return f"{name} loosens the match of Python versions"
    if name == "RAY_AUTH_TOKEN":
        return f"{name} would be used instead of the cluster's token"
    if name == "RAY_USE_TLS" and planned is None and value not in ("0", "false", ""):
        return f"{name}={value}, the plan has no TLS"
    if planned is not None and value is not None and value != planned:
        return f"{name}={value}, planned {planned}"
    return ""


def _exempt(address: str, no_proxy: str) -> bool:
    """Whether ``no_proxy`` keeps ``address`` from the proxy, by name or by network."""
    import ipaddress

    for entry in (part.strip() for part in no_proxy.split(",") if part.strip()):
        if entry in ("*", address) or address.endswith("." + entry.lstrip(".")):
            return True
        try:
            if ipaddress.ip_address(address) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


CHECKS = (
    Check(
        "platform",
        "node",
        "fail",
        "the planned platform",
        platform,
        "Packages and interpreter are locked for one operating system and architecture.",
        "Correct the platform of the host in the cluster file, then run `saf-env lock`.",
    ),
    Check(
        "worker-ports",
        "node",
        "warn",
        "a port for a worker on every CPU",
        worker_ports,
        "Each worker and each driver on a node takes one of its ports, 12 fewer than "
        "`cluster.ports_per_node`. Where the cluster file leaves `cpus` open, the host's CPUs "
        "count. Work that waits for other work holds a port too, so deeply nested tasks need more.",
        "Raise cluster.ports_per_node, or give the node fewer cpus, in the cluster file.",
    ),
    Check(
        "memory",
        "node",
        "fail",
        "the memory that Ray is promised",
        memory,
        "memory and object_store_memory of the cluster file must be available on the host, for all "
        "of its nodes together.",
        "Lower memory or object_store_memory of the node in the cluster file, or end what uses "
        "the host's memory.",
    ),
    Check(
        "disk",
        "node",
        "fail",
        "space for the environment, the temp dir and the engine",
        disk,
        "Below 1 GiB nothing can be installed or spilled; Ray avoids a disk that is 95 % full. Of "
        "a container the disk where its engine keeps images and volumes counts too, as far as the "
        "host sees it.",
        "Free space on the disk that is named.",
    ),
    Check(
        "shm",
        "node",
        "warn",
        "shared memory for the object store",
        shm,
        "On Linux the object store lies in /dev/shm, 30 % of memory unless planned otherwise; "
        "where it does not fit, Ray uses /tmp and every object is slower. A container gets its "
        "own, which counts as its memory and must leave some.",
        "Enlarge /dev/shm (`mount -o remount,size=…`), or set object_store_memory of the node in "
        "the cluster file.",
    ),
    Check(
        "nofile",
        "node",
        "fail",
        "enough open files",
        nofile,
        "Ray's processes keep connections to each other; 65536 are wanted, below 4096 a node fails "
        "under load. Containers have the engine's limit, which is higher.",
        "Raise the hard limit of open files: limits.conf on Linux, launchd's on a Mac. saf-env "
        "raises the soft limit itself.",
        lambda node: not in_container(node),
    ),
    Check(
        "temp-dir",
        "node",
        "fail",
        "a short, private, writable temp dir",
        temp_dir,
        "Ray puts UNIX sockets in it, whose paths are limited to 107 bytes on Linux and 103 on "
        "macOS, and its own folders inside are writable for all, so it must be 0700. A node is "
        "started in it: a Python module there would be imported in place of an installed one.",
        "Remove what is in its place after a look at it, or give the cluster a shorter name.",
    ),
    Check(
        "stale-ray",
        "node",
        "fail",
        "no forgotten Ray",
        stale_ray,
        "A process of an earlier start would join again or hold its ports. Another Ray on the host "
        "is only told, and never stopped by saf-env; so is a node that has left the plan.",
        "`saf-env down NODE` ends what is left of the node. Another Ray is for its owner to end.",
    ),
    Check(
        "environment-variables",
        "node",
        "fail",
        "no variable that contradicts the plan",
        environment_variables,
        "Ray reads its settings from RAY_ variables, and one that it does not understand means "
        "'off' without a word. gRPC sends traffic to a proxy unless no_proxy names the nodes.",
        "Unset the variables that are named, and add the nodes' addresses to no_proxy.",
    ),
)

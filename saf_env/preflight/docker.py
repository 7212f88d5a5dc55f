"""Checks of container nodes: the Docker engine, Compose, the image, and what containers may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saf_env.engine import is_local
from saf_env.plan.images import KEY_LABEL
from saf_env.plan.model import ImagePlan, NodePlan
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

ENGINE_NEEDED = (20, 10)
"""The first with ``host-gateway``, by which a container reaches its host."""

COMPOSE_NEEDED = (2, 20)
"""The first whose ``up`` has all that :mod:`saf_env.runtimes.compose` asks of it."""

_MACHINES = {p.docker: p.machine for p in PLATFORMS.values() if p.os == "linux"}
"""The machine, as Linux says it, by Docker's name for it."""

_DENIED = re.compile(r"permission denied while trying to connect|connect: permission denied", re.I)
_ELSE = (
    '; or let the node run natively: fallback = "native" in the cluster file, `saf-env down`, '
    "`saf-env up`"
)


def _answer(case: Case) -> Mapping[str, Any]:
    """What the engine says of itself.

    Raises:
        UnknownFactError: it does not answer; that is a failure of ``docker-engine``.
    """
    seen: Mapping[str, Any] = case.fact("docker")
    if seen["error"]:
        raise UnknownFactError(seen["error"])
    return seen


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def engine(case: Case) -> Verdict:
    """An engine answers, and is new enough; a node that fell back is told why it did."""
    seen = case.fact("docker")
    if case.node.fallback_reason:
        summary = f"runs natively: {case.node.fallback_reason}"
        return warn(summary, seen["error"], _remedy(case, seen) or "run `saf-env lock`")
    if _DENIED.search(seen["error"]):
        raise UnknownFactError(seen["error"])
    if seen["error"]:
        what = (
            "Docker is not installed" if not seen["client"] else "the Docker engine does not answer"
        )
        return fail(what, seen["error"], _remedy(case, seen) + _ELSE)
    if not is_local(seen["endpoint"]):
        local = "desktop-linux, or orbstack" if case.on_mac else "default"
        return fail(
            "the Docker engine is on another machine",
            seen["endpoint"],
            "use the one of this machine: unset DOCKER_HOST and DOCKER_CONTEXT, then `docker "
            f"context use` {local}" + _ELSE,
        )
    floor = ".".join(map(str, ENGINE_NEEDED))
    version = _version(seen["engine"])
    if version is None:
        return warn("the engine's version is not known", seen["engine"], f"{floor} is needed")
    if version < ENGINE_NEEDED:
        return fail(
            "the Docker engine is too old",
            f"{seen['engine']}, at least {floor} is needed",
            ("update Docker Desktop" if case.on_mac else "update it, on Debian with `make engine`")
            + _ELSE,
        )
    return ok(f"Docker engine {seen['engine']}", seen["os"])


def _remedy(case: Case, seen: Mapping[str, Any]) -> str:
    """What brings an engine that answers; empty when one does."""
    if not seen["error"]:
        return ""
    if _DENIED.search(seen["error"]):
        return _allow(case)
    if not seen["client"] and case.on_mac:
        return "install Docker Desktop, OrbStack or Colima, and start it"
    if not seen["client"]:
        return "install Docker Engine, on Debian with `make engine`"
    if case.on_mac:
        return "start Docker Desktop, OrbStack or Colima (`colima start`)"
    return "start it: `sudo systemctl start docker`, or on Debian `make engine`"


def _allow(case: Case) -> str:
    if case.on_mac:
        return "start Docker Desktop or OrbStack as this user"
    return (
        "run `sudo usermod -aG docker $USER` and log in anew: who is in the group docker may do "
        "what root may"
    )


def rights(case: Case) -> Verdict:
    """This user may talk to the engine."""
    seen = case.fact("docker")
    if _DENIED.search(seen["error"]):
        return fail("this user may not talk to the Docker engine", seen["error"], _allow(case))
    _answer(case)
    return ok("this user may talk to the engine")


def compose(case: Case) -> Verdict:
    """Compose is there as the plugin of version 2."""
    seen = case.fact("docker")
    if not seen["client"]:
        raise UnknownFactError(seen["error"])
    floor, found, alone = ".".join(map(str, COMPOSE_NEEDED)), seen["compose"], seen["compose_alone"]
    update = (
        "update Docker Desktop or OrbStack, which have it"
        if case.on_mac
        else "install Docker's compose plugin (docker-compose-plugin), on Debian with `make engine`"
    )
    if not found and _version(alone) is not None and (_version(alone) or (0, 0)) < (2, 0):
        return fail(
            "only Compose v1 is installed",
            f"docker-compose {alone}; `docker compose` {floor} or newer is needed",
            update,
        )
    if not found:
        also = f"docker-compose {alone} is no plugin of it" if alone else ""
        return fail("`docker compose` is not installed", also, update)
    version = _version(found)
    if version is None:
        return warn("the version of Compose is not known", found, f"{floor} is needed")
    if version < COMPOSE_NEEDED:
        return fail("Compose is too old", f"{found}, at least {floor} is needed", update)
    return ok(f"Compose {found}")


def vm(case: Case) -> Verdict:
    """The machine that the engine runs on has what the plan gives to its containers."""
    seen, node = _answer(case), case.node
    if wrong := _unusable(case, seen):
        return wrong
    evidence = f"{_runtime(seen)} has {seen['cpus']} CPUs and {gib(seen['memory'])}"
    here = [n for n in case.cluster.containers if n.host == node.host]
    names = listed([n.name for n in here])
    promised = sum(_promised(n) for n in here)
    cpus = sum(n.cpus or 0 for n in here)
    if (node.cpus or 0) > seen["cpus"]:
        return fail(f"{node.cpus} CPUs are planned for the node", evidence, _enlarge(seen, "cpus"))
    if _promised(node) > seen["memory"]:
        text = f"{gib(_promised(node))} are planned for the node"
        return fail(text, evidence, _enlarge(seen, "memory"))
    if promised > seen["memory"]:
        text = f"{gib(promised)} are planned for containers {names} together"
        return fail(text, evidence, _enlarge(seen, "memory"))
    if cpus > seen["cpus"]:
        text = f"{cpus} CPUs are planned for containers {names} together"
        return warn(text, evidence, _enlarge(seen, "cpus"))
    return ok("the engine has what is planned", evidence)


def _unusable(case: Case, seen: Mapping[str, Any]) -> Verdict | None:
    """Why the engine's machine is of no use for the node, whatever it has."""
    node = case.node
    wanted = PLATFORMS[node.platform].machine
    machine = _MACHINES.get(seen["architecture"], seen["architecture"])
    if machine != wanted:
        return fail(
            f"the engine runs containers for {machine}",
            f"node {node.name} is planned for {node.platform}: {wanted}",
            f"correct the platform of host {node.host} in the cluster file, or choose another "
            "engine (`docker context use`, DOCKER_HOST)",
        )
    if node.network == "host" and case.on_mac:
        return fail(
            "on a Mac the host's network is that of Docker's own machine",
            f'node {node.name} has network = "host"',
            'take network = "host" out of the cluster file',
        )
    return None


def _promised(node: NodePlan) -> int:
    """Bytes: a container's limit, or without one at least its object store."""
    return node.memory or node.object_store_memory or 0


def _runtime(seen: Mapping[str, Any]) -> str:
    """What the engine calls its system; of Colima, whose system is an Ubuntu, that it is Colima."""
    of_colima = seen["name"] == "colima" or seen["name"].startswith("colima-")
    return f"Colima ({seen['os']})" if of_colima else str(seen["os"])


def _enlarge(seen: Mapping[str, Any], key: str) -> str:
    hint = f"lower {key} of the container nodes in the cluster file"
    if _runtime(seen) != seen["os"]:
        option = "--cpu COUNT" if key == "cpus" else "--memory GIB"
        return f"{hint}, or run `colima stop`, then `colima start {option}`"
    if seen["os"] == "Docker Desktop":
        what = "CPU limit" if key == "cpus" else "Memory limit"
        return f"{hint}, or raise the {what} in Docker Desktop under Settings > Resources"
    if seen["os"] == "OrbStack":
        return f"{hint}, or raise the limit in OrbStack's settings"
    return hint


def image(case: Case) -> Verdict:
    """The engine has the image of the plan, for the node's platform."""
    node = case.node
    if node.image is None:
        return fail(
            "the lock has no base image for the node",
            "neither a registry nor the engine of the lock's machine had one",
            "run `saf-env lock` where the base image can be pulled, or after `make base-image`",
        )
    found = _answer(case)["image"]
    if found is not None and found["labels"].get(KEY_LABEL) == node.image.key:
        if wrong := _other_platform(node, found):
            return fail("the image is for another platform", wrong, _REBUILD)
        if (runs := _answer(case)["running"]) not in ("", found["id"]):
            return warn(
                "its container runs another image than has its name now",
                f"it runs {runs[:19]}; {node.image.tag} is {found['id'][:19]}",
                f"`saf-env down {node.name}`, then `saf-env up {node.name}`, starts that one",
            )
        return ok(node.image.tag, found["id"][:19])
    return _unbuilt(case, node.image)


def _unbuilt(case: Case, image: ImagePlan) -> Verdict:
    """What stands in the way of an image that is not there."""
    seen = _answer(case)
    base = seen["base"]
    there = f"{image.tag} was made from another plan" if seen["image"] else f"no image {image.tag}"
    absence = case.facts["unknown"].get("packages", there)
    if base is not None and (wrong := _other_platform(case.node, base)):
        return fail(
            "the base image is for another platform",
            f"{image.base[:30]}: {wrong}",
            "lock one for the node's, [containers] base in the cluster file, then `saf-env lock "
            "--upgrade`",
        )
    if base is None and image.base.startswith("sha256:"):
        return fail(
            "the engine does not have the base image",
            f"{image.base[:19]}, locked by its id in an engine; {absence}",
            "make it with `make base-image`, then run `saf-env lock --upgrade`",
        )
    if not seen["buildx"]:
        return fail(
            "the image is not built, and cannot be",
            f"{absence}; Docker's buildx plugin is missing",
            "install it (docker-buildx-plugin), on Debian with `make engine`",
        )
    return fail("the image is not built", absence, "run `saf-env check --fix` or `saf-env up`")


_REBUILD = "run `saf-env check --fix`, which builds it anew"


def _other_platform(node: NodePlan, found: Mapping[str, Any]) -> str:
    """How the platform of an image differs from the node's; empty when it does not."""
    machine = _MACHINES.get(found["architecture"], found["architecture"])
    wanted = PLATFORMS[node.platform]
    if (found["os"], machine) == (wanted.os, wanted.machine):
        return ""
    return f"{found['os']} on {machine}, node {node.name} is {wanted.name}"


def user(case: Case) -> Verdict:
    """The container's user can read the cluster's token, and nobody else.

    Containers run as the token's owner; those of root as a user that the host does not have, with
    a copy of it.
    """
    seen, security = case.fact("token"), _answer(case)["security"]
    remapped = [name for name in ("rootless", "userns") if name in security]
    if remapped:
        return fail(
            "the engine gives containers other users than the host's",
            f"security option {remapped[0]}: the token would be unreadable in the container",
            "use an engine without it (`docker context use`, DOCKER_HOST)" + _ELSE,
        )
    owner, mode = seen.get("owner", seen["uid"]), seen.get("mode", 0o600)
    if owner == 0:
        return ok("a user of its own, with a copy of the token")
    if not mode & 0o400:
        return fail(
            "the container's user cannot read the token",
            f"{seen['path']} has mode {mode:04o}",
            f"chmod 600 {seen['path']}",
        )
    return ok(f"user {owner}, the token's owner")


CHECKS = (
    Check(
        "docker-engine",
        "node",
        "fail",
        "a Docker engine that answers",
        engine,
        "A container node needs Docker Engine 20.10 or newer, and this user's way to it: the "
        "docker command's own context, or DOCKER_HOST. It must be on the node's host, where its "
        "ports are published. A node that runs natively, as its fallback allows, is told why.",
        "Install and start an engine: `make engine` on Debian; Docker Desktop, OrbStack or Colima "
        'on a Mac. Or let the node run natively: fallback = "native" in the cluster file.',
        lambda node: in_container(node) or bool(node.fallback_reason),
    ),
    Check(
        "docker-rights",
        "node",
        "fail",
        "the right to talk to the engine",
        rights,
        "An engine that does not let this user in is another fault than one that does not run.",
        "`sudo usermod -aG docker $USER` and a new login: who is in the group docker may do what "
        "root may. On a Mac, start the engine as this user.",
        in_container,
    ),
    Check(
        "docker-compose",
        "node",
        "fail",
        "Compose 2.20 or newer",
        compose,
        "Containers are started and stopped by `docker compose`, the plugin. Compose v1, the "
        "program `docker-compose`, is not maintained and does not know what is asked of it.",
        "Install Docker's compose plugin: `make engine` on Debian; an up-to-date Docker Desktop "
        "or OrbStack has it.",
        in_container,
    ),
    Check(
        "docker-vm",
        "node",
        "fail",
        "an engine with the CPUs, memory and architecture of the plan",
        vm,
        "On macOS the engine runs in a virtual machine with CPUs and memory of its own. One node "
        "must not have more than the engine, all containers of the host together not more memory; "
        "more CPUs together are a warning.",
        "Give the engine more CPUs or memory in its settings, or lower those of the container "
        "nodes in the cluster file.",
        in_container,
    ),
    Check(
        "image-present",
        "node",
        "fail",
        "the image of the plan",
        image,
        "The engine must have the image that was built from the lock, known by a digest of all "
        "that went into it, for the node's platform. `saf-env up` builds it before it checks, and "
        "`--fix` builds it, or builds it anew when it has other files than it should.",
        "`saf-env check --fix` or `saf-env up` builds it. The base image, if the lock has none: "
        "`make base-image`, then `saf-env lock --upgrade`.",
        in_container,
    ),
    Check(
        "container-user",
        "node",
        "fail",
        "a user in the container who can read the token",
        user,
        "Containers run as the token's owner, and never as root. An engine that gives containers "
        "other users (rootless, userns-remap) makes the token unreadable for them.",
        "`chmod 600` of the token, or an engine that does not map users (`docker context use`).",
        in_container,
    ),
)

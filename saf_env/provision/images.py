"""Images of container nodes: built once for each key, by BuildKit, from a rendered context.

In goes an :class:`~saf_env.plan.model.ImagePlan`, out comes the id of an image that the engine
has. What the build needs to reach the package index, credentials among it, goes in as BuildKit
secrets and is in no layer, argument or history (see :mod:`saf_env.provision.settings`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saf_env.engine import Engine
from saf_env.errors import SafEnvError, ToolchainError
from saf_env.plan.images import CLUSTER_LABEL, FINGERPRINT_LABEL, KEY_LABEL
from saf_env.plan.model import ImagePlan
from saf_env.platforms import PLATFORMS
from saf_env.provision.context import render
from saf_env.provision.failures import failed
from saf_env.provision.folders import Notify, fresh, guard, publish, remove
from saf_env.provision.settings import Settings, settings
from saf_env.transports.base import CommandResult
from saf_env.uv import Uv

_SECONDS = 3600.0  # a base image and 400 MB of packages at 2 Mbit/s

_REMOVING = 120.0

_KEPT = 2
"""Images of earlier locks that stay, for each environment and platform; each may have 1 GB."""

# What cannot be saved is no image, so `docker load` fails too.
_SEND = 'docker save -- "$2" | DOCKER_CONTEXT= DOCKER_HOST="$1" docker load --quiet'

_STEP = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")
_STAGES = ("[build ", "[image ")  # as images/Dockerfile calls them
_OURS = "saf-env: "


def ensure_image(
    image: ImagePlan,
    cluster: str,
    uv: Uv,
    engine: Engine,
    notify: Notify,
    *,
    rebuild: bool = False,
) -> str:
    """Build ``image`` unless the engine has it.

    Args:
        image: what is wanted.
        cluster: the id of the cluster that it is built for, which its label has.
        uv: the pinned uv of this machine.
        engine: where it is built.
        notify: gets one line for each step that takes time.
        rebuild: build it anew even if it is there, from nothing that earlier builds left.

    Returns:
        The image's id, ``sha256:…``.

    Raises:
        ToolchainError: it cannot be made exactly as locked; no tag is left.
        BusyError: another saf-env has been making it for too long.
    """
    before = built(image, engine)
    if before and not rebuild:
        return before
    place = uv.home / ".saf" / "images" / image.key
    log = place.with_suffix(".log")
    with guard(place, notify):
        if not rebuild and (found := built(image, engine)):
            return found
        base = _base(image, engine)
        with fresh(place) as folder:
            (folder / "private").mkdir(mode=0o700)
            reach = settings(uv, folder / "private")
            render(image, folder / "context", uv, reach, notify)
            # What it is built from can be looked at as long as it has not succeeded.
            publish(folder / "context", place)
            notify(f"building the image {image.tag}")
            argv = _command(image, cluster, base, place, reach)
            if rebuild:
                argv.insert(2, "--no-cache")
            secrets = {"SAF_ENV_SETTINGS": reach.text}
            _build(argv, secrets, engine, log, notify)
        remove(place)
        remove(log)
    if found := built(image, engine):
        if before and before != found:
            engine.run("image", "rm", before)  # it has no name any more; a container may need it
        return found
    raise ToolchainError(
        f"{engine.transport.host}: the image {image.tag} was built, and the engine has it not",
        hint="its builder may keep images to itself: `docker buildx use default`, then try again",
    )


def prune(image: ImagePlan, cluster: str, engine: Engine) -> None:
    """Remove what earlier locks of ``cluster`` made for the same environment and platform.

    The newest ones stay: who goes back to an earlier lock need not build again. The engine refuses
    to remove an image that a container has. What cannot be removed now can be at the next build.
    """
    with contextlib.suppress(SafEnvError):
        listed = engine.run(
            *("image", "ls", "--filter", f"label={CLUSTER_LABEL}={cluster}"),
            *("--format", "{{.Repository}}:{{.Tag}}"),  # the newest first
        )
        series = image.tag.removesuffix(image.key)
        ours = [tag for tag in listed.stdout.split() if tag.startswith(series)]
        for tag in [tag for tag in ours if tag != image.tag][_KEPT:]:
            engine.run("image", "rm", tag, timeout=_REMOVING)


def builds_for(image: ImagePlan, engine: Engine) -> bool:
    """Whether ``engine`` answers, and is of the image's platform: others emulate, slowly."""
    return engine.architecture() == PLATFORMS[image.environment.interpreter.platform].docker


def send_image(image: ImagePlan, source: Engine, target: Engine, notify: Notify) -> None:
    """Copy an image that ``source`` has to ``target``.

    Raises:
        HostUnreachableError: the target's host cannot be reached.
        ToolchainError: the image has not arrived.
    """
    host = target.transport.host
    size = (_inspect(image.tag, source) or {}).get("Size", 0)
    notify(f"sending the image {image.tag} to {host}, {size / 1e9:.1f} GB")
    argv = ["sh", "-c", _SEND, "sh", target.variables()["DOCKER_HOST"], image.tag]
    done = target.transport.run(argv, env=source.variables(), timeout=_SECONDS)
    if not done.ok or not built(image, target):
        raise _failure(f"load the image {image.tag}, which was sent,", done)


def image_id(tag: str, engine: Engine) -> str | None:
    """``sha256:…`` of the image called ``tag``; None when the engine has none.

    Raises:
        ToolchainError: the engine does not answer.
    """
    seen = _inspect(tag, engine)
    return str(seen["Id"]) if seen else None


# What the engine has


def _inspect(reference: str, engine: Engine) -> dict[str, Any] | None:
    result = engine.run("image", "inspect", "--format", "{{json .}}", reference)
    if result.ok:
        seen: dict[str, Any] = json.loads(result.stdout)
        return seen
    if "no such image" in result.stderr.lower():
        return None
    raise _failure("look for images", result)


def built(image: ImagePlan, engine: Engine) -> str:
    """The id of ``image`` if the engine has it under its tag and its key; else nothing.

    Raises:
        ToolchainError: the engine does not answer.
    """
    seen = _inspect(image.tag, engine)
    labels = (seen or {}).get("Config", {}).get("Labels") or {}
    return str(seen["Id"]) if seen and labels.get(KEY_LABEL) == image.key else ""


def _base(image: ImagePlan, engine: Engine) -> str:
    """A reference of the base image that a Dockerfile can name."""
    seen = _inspect(image.base, engine)
    local = image.base.startswith("sha256:")
    if seen is None and local:
        raise ToolchainError(
            f"{engine.transport.host}: the engine does not have the base image {image.base[:19]}",
            hint="it was locked by its id in an engine, and must be there: `make base-image` makes "
            "it from Debian packages, and `saf-env lock --upgrade` locks what there is",
        )
    if seen is None:
        return image.base  # BuildKit pulls it
    wanted = PLATFORMS[image.environment.interpreter.platform].docker
    if (seen["Os"], seen["Architecture"]) != ("linux", wanted):
        raise ToolchainError(
            f"{engine.transport.host}: the base image {image.base} is for {seen['Os']} on "
            f"{seen['Architecture']}, the node for linux on {wanted}",
            hint="lock a base image for that architecture: [containers] base in the cluster file",
        )
    if not local:
        return image.base
    # BuildKit takes an id for a name, and asks a registry for it.
    name = f"saf-env-base:{image.base.removeprefix('sha256:')[:12]}"
    tagged = engine.run("tag", image.base, name)
    if not tagged.ok:
        raise _failure(f"give the base image the name {name}", tagged)
    return name


# The build


def _command(
    image: ImagePlan, cluster: str, base: str, context: Path, reach: Settings
) -> list[str]:
    """``docker build`` with its options."""
    platform = PLATFORMS[image.environment.interpreter.platform]
    oldest = platform.uv_platform.partition("manylinux_")[2].replace("_", ".")
    argv = ["docker", "build", "--progress", "plain", "--file", str(context / "Dockerfile")]
    argv += ["--platform", f"linux/{platform.docker}", "--tag", image.tag]
    argv += ["--build-arg", f"BASE={base}", "--build-arg", f"GLIBC_MIN={oldest}"]
    for name, value in _labels(image, cluster).items():
        argv += ["--label", f"{name}={value}"]
    for name, path in sorted(reach.files.items()):
        argv += ["--secret", f'id={name},"src={path}"']  # a row of CSV
    argv += ["--secret", "id=settings,env=SAF_ENV_SETTINGS"]
    argv += ["--network", "host"] if reach.loopback else []
    return [*argv, str(context)]


def _build(
    argv: Sequence[str], secrets: Mapping[str, str], engine: Engine, log: Path, notify: Notify
) -> None:
    """Run a build to its end and tell what it says about itself."""
    env = {
        **engine.variables(),
        **secrets,
        "DOCKER_BUILDKIT": "1",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # they hold the time of the build
    }
    # Its output goes to a file, which can be followed while it grows.
    follow = ["sh", "-c", 'exec "$@" >"$0" 2>&1', str(log), *argv]
    started, seen = time.monotonic(), 0
    running = engine.transport.start(follow, env=env)
    try:
        while (result := running.poll()) is None:
            if time.monotonic() - started > _SECONDS:
                raise ToolchainError(
                    f"{engine.transport.host}: the image was not built within {_SECONDS:.0f} s",
                    hint="the engine may be overloaded or a download stalled; try again",
                )
            seen = _tell(log, seen, notify)
            time.sleep(0.1)
    finally:
        running.stop()
    _tell(log, seen, notify)
    if not result.ok:
        output = log.read_text("utf-8", "replace") if log.exists() else ""
        failure = _failure("build the image", replace(result, stderr=result.stderr + output))
        raise ToolchainError(f"{failure.message}\n(all of it: {log})", hint=failure.hint)


def _labels(image: ImagePlan, cluster: str) -> dict[str, str]:
    env = image.environment
    toolchain = [vars(env.interpreter), env.uv_version, image.uv_wheel, image.base]
    digest = hashlib.sha256(json.dumps(toolchain, sort_keys=True).encode()).hexdigest()
    return {
        CLUSTER_LABEL: cluster,
        "saf-env.environment-lock": env.lock.sha256,
        "saf-env.toolchain": digest,
        FINGERPRINT_LABEL: env.fingerprint,
        KEY_LABEL: image.key,
    }


def _tell(log: Path, seen: int, notify: Notify) -> int:
    """Hand on the whole lines of ``log`` from byte ``seen`` on that are ours; returns their end."""
    if not log.exists():
        return seen
    with log.open("rb") as file:
        file.seek(seen)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", "replace").splitlines():
        step = _STEP.fullmatch(line)
        if step and step[2].startswith(_OURS) and not step[2].startswith(f"{_OURS}error"):
            notify(step[2].removeprefix(_OURS))
    return seen + len(whole)


# Failures

# Words in the messages of Docker and BuildKit, each with what to do. The first that occurs decides.
_HINTS = (
    (
        ("no space left on device", "disk quota exceeded"),
        "free some GB on the disk of the Docker engine: `docker system df` shows what it holds, "
        "`docker builder prune` removes the cache of builds",
    ),
    (
        (
            "cannot connect to the docker daemon",
            "error during connect",
            "connection refused",
            "is the docker daemon running",
            "error reading from server: eof",
            "unexpected eof",
        ),
        "the Docker engine does not answer, or has stopped: start it, then run the command again",
    ),
    (
        (
            "permission denied while trying to connect",
            "dial unix",
        ),
        "this user may not talk to the Docker engine: `saf-env check` says how to get the right",
    ),
    (
        ("buildx component is missing", "buildx plugin"),
        "install Docker's buildx plugin, which builds images (Debian: docker-buildx)",
    ),
    (
        ("exec format error", "no match for platform", "does not match the specified platform"),
        "the base image is for another architecture: lock one for the node's, [containers] base in "
        "the cluster file",
    ),
    (
        ("load metadata for", "pull access denied", "manifest unknown"),
        "the base image cannot be pulled: connect the engine to its registry; on a machine that "
        "cannot, `make base-image` makes one from Debian packages, and `saf-env lock --upgrade` "
        "locks it",
    ),
)


def _failure(what: str, result: CommandResult) -> ToolchainError:
    """The error for a docker command that failed."""
    lines = _telling(result.stderr or result.stdout)
    shown = replace(result, stdout="", stderr="\n".join(lines))
    said = shown.stderr.lower()
    hint = next((h for words, h in _HINTS if any(w in said for w in words)), "")
    error = failed(what, shown)  # it knows the words of uv
    return ToolchainError(error.message, hint=hint or error.hint)


def _telling(output: str) -> list[str]:
    """Of a build's output the end of the step that failed; of anything else its end."""
    lines = output.strip().splitlines()
    broken = [m[1] for line in lines if (m := _STEP.fullmatch(line)) and m[2].startswith("ERROR")]
    steps = [(m[1], m[2]) for line in lines if (m := _STEP.fullmatch(line))]
    of_it = [
        text
        for number, text in steps
        # The head of a step is all of its command.
        if broken and number == broken[0] and text.strip() and not text.startswith(_STAGES)
    ]
    ours = [t.removeprefix(f"{_OURS}error: ") for t in of_it if t.startswith(f"{_OURS}error: ")]
    if ours:
        before = [t for t in of_it if not t.startswith((_OURS, "ERROR"))]
        return [*before[-8:], *ours]
    return (of_it or lines)[-12:]

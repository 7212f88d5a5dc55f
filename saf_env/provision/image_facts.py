"""The facts of container nodes that their host does not have: of the engine, and of their images.

An image is looked at from inside, by the probe run in a container of its own. Its id is a digest of
all that is in it, so what was seen of it once is true for ever: it is kept under ``.saf/images``,
and a node is looked at without starting a container. A node that runs is what its container was
made from, whatever has the name of its image by now.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from saf_env import probe
from saf_env.engine import Engine
from saf_env.errors import HostUnreachableError, SafEnvError
from saf_env.plan.command import IMAGE_PYTHON
from saf_env.plan.compose import LABEL_CLUSTER, LABEL_NODE
from saf_env.plan.model import NodePlan
from saf_env.provision.folders import read_json, write_atomically
from saf_env.transports.script import script

OF_ENVIRONMENT = (
    *("interpreter", "environment", "packages", "ray_build", "isolation", "files", "python_files"),
)
OF_IMAGE = (*OF_ENVIRONMENT, "platform")
_PROBE = Path(probe.__file__)


def container_facts(
    nodes: Sequence[NodePlan], engine: Engine, home: Path, cluster: str, *, deep: bool = False
) -> dict[str, dict[str, Any]]:
    """What is to be known of ``nodes``, besides what their host tells of itself.

    Args:
        nodes: nodes of one host that are containers, or would be had they not fallen back.
        engine: of that host.
        home: the project folder.
        cluster: the id of their cluster, which its containers have as a label.
        deep: hash every file of the images, whatever is known of them.

    Returns:
        By node name ``facts`` and ``unknown`` as :func:`saf_env.probe.gather` gives them. The fact
        ``docker`` is :meth:`saf_env.engine.Engine.facts` with ``image`` and ``base``: what the
        engine has of the node's image and of its base, see :meth:`saf_env.engine.Engine.images`,
        or None; and ``running``: the id of the image that its container runs, empty without one.
    """
    if not nodes:
        return {}
    images = {n.image.tag: n.image for n in nodes if n.kind == "container" and n.image}
    with ThreadPoolExecutor(max_workers=3) as pool:
        asked = [*images, *sorted({image.base for image in images.values()})]
        having = pool.submit(engine.images, asked)
        running = pool.submit(_running, engine, cluster)
        docker = engine.facts()
        known = having.result() if not docker["error"] else {}
        runs = running.result() if not docker["error"] else {}
        ids = {tag: image["id"] for tag, image in known.items() if tag in images}
        looks = {
            image: pool.submit(_look_inside, image, engine, home, deep)
            for image in {*ids.values(), *(runs[n.name] for n in nodes if n.name in runs)}
        }
        inside = {image: look.result() for image, look in looks.items()}
    found = {}
    for node in nodes:
        tag, base = (node.image.tag, node.image.base) if node.image else ("", "")
        own = runs.get(node.name, "") if node.kind == "container" else ""
        seen = {**docker, "image": known.get(tag), "base": known.get(base), "running": own}
        facts, unknown = {"docker": seen}, {}
        if node.kind == "container":
            absent = dict.fromkeys(OF_IMAGE, docker["error"] or absence(node))
            look = inside.get(own or ids.get(tag, ""), {"facts": {}, "unknown": absent})
            facts |= _with_engine(look["facts"], docker)
            unknown = dict(look["unknown"])
        found[node.name] = {"facts": facts, "unknown": unknown}
    return found


def _running(engine: Engine, cluster: str) -> dict[str, str]:
    """The id of the image of every container of a cluster that runs, by node."""
    wanted = {"label": [f"{LABEL_CLUSTER}={cluster}", LABEL_NODE], "status": "running"}
    with engine.api() as api:
        there = api.containers(filters=wanted)
    return {str(c["Labels"][LABEL_NODE]): str(c["ImageID"]) for c in there}


def absence(node: NodePlan) -> str:
    """Why nothing is known of an image that an engine has not."""
    return f"the engine has no image {node.image.tag}" if node.image else "it has no image"


def joined(host: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """The facts of a node from those of its host and those of :func:`container_facts`.

    What the host is, is the fact ``host``: a container's ``platform`` is another.
    """
    facts = {**host["facts"], **container["facts"]}
    if "platform" in host["facts"]:
        facts["host"] = host["facts"]["platform"]
    for name in container["unknown"]:
        facts.pop(name, None)
    unknown = {**host["unknown"], **container["unknown"]}
    left = {name: reason for name, reason in unknown.items() if name not in facts}
    return {**host, "facts": facts, "unknown": left}


def _with_engine(inside: dict[str, Any], docker: dict[str, Any]) -> dict[str, Any]:
    """Facts of an image with what the engine, not the image, says of the platform."""
    if "platform" not in inside:
        return inside
    platform = {
        **inside["platform"],
        "system": f"{docker['os']}, {docker['kernel']}",
        "cpus": docker["cpus"],
    }
    return {**inside, "platform": platform}


def _look_inside(image: str, engine: Engine, home: Path, deep: bool) -> dict[str, Any]:
    """``facts`` and ``unknown`` of the image with the id ``image``."""
    file = home / ".saf" / "images" / f"facts-{image.partition(':')[2][:12]}.json"
    mark = {"image": image, "look": _look_digest()}
    kept = {} if deep else read_json(file)
    if {key: kept.get(key) for key in mark} == mark and _whole(kept.get("facts")):
        return {"facts": kept["facts"], "unknown": {}}
    seen = _run(image, engine, deep)
    if not seen["unknown"] and not deep:
        # A read-only project can be looked at all the same.
        with contextlib.suppress(SafEnvError):
            write_atomically(file, json.dumps({**mark, "facts": seen["facts"]}))
    return seen


def _run(image: str, engine: Engine, deep: bool) -> dict[str, Any]:
    """The same, by the probe in a container without a network or any right."""
    argv = ["run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    words, stdin = script(IMAGE_PYTHON, _PROBE, {"only": list(OF_IMAGE), "deep": deep})
    try:
        seconds = 600.0 if deep else 60.0
        result = engine.run(*argv, image, *words, timeout=seconds, stdin=stdin)
        problem = "" if result.ok else result.tail(3)
    except HostUnreachableError:
        raise
    except SafEnvError as error:
        problem = error.message
    if problem:
        text = f"the probe does not run in the image {image[:19]}: {problem}"
        return {"facts": {}, "unknown": dict.fromkeys(OF_IMAGE, text)}
    seen = json.loads(result.stdout)
    if "platform" in seen["facts"]:  # the rest of it is of the machine and of that container
        of_image = ("sys_platform", "machine", "version", "translated")
        seen["facts"]["platform"] = {key: seen["facts"]["platform"][key] for key in of_image}
    return {"facts": seen["facts"], "unknown": seen["unknown"]}


def _whole(facts: object) -> bool:
    return isinstance(facts, dict) and facts.keys() == set(OF_IMAGE)


@cache
def _look_digest() -> str:
    """Of all that decides what is seen of an image, besides the image."""
    how = json.dumps([str(IMAGE_PYTHON), OF_IMAGE]).encode()
    return hashlib.sha256(how + _PROBE.read_bytes()).hexdigest()

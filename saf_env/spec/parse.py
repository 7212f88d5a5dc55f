"""From the text of a cluster file to a :class:`ClusterSpec`, or all of its mistakes at once.

Three steps, each of which finds all that it can find: TOML, the schema (``schemas/cluster.json``,
whose descriptions are the words of the messages), and what a schema cannot say
(:mod:`saf_env.spec.rules`).
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.errors import ClusterFileError
from saf_env.spec.model import (
    DEFAULT_BASE,
    DEFAULT_PORT,
    DEFAULT_PORTS_PER_NODE,
    Archive,
    ClusterSpec,
    EnvironmentSpec,
    HostSpec,
    NodeSpec,
    PythonSpec,
    TailscaleSpec,
)
from saf_env.spec.words import close_word, key_path, nearest, shown

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAX_BYTES = 1_000_000
"""A cluster file of 256 nodes has some 50 kB; more than this is not a cluster file."""

_UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def read(path: Path) -> str:
    """The text of the cluster file at ``path``.

    Raises:
        ClusterFileError: it is missing, a folder, unreadable, too large or not UTF-8.
    """
    try:
        if not path.is_file() and path.exists():
            raise ClusterFileError(f"cannot read {path}: it is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ClusterFileError(
            f"there is no cluster file at {path}",
            hint="run saf-env in the project folder, or name the file with --file",
        ) from error
    except OSError as error:
        raise ClusterFileError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ClusterFileError(f"{path} is larger than {MAX_BYTES} bytes: not a cluster file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClusterFileError(
            f"{path} is not text in UTF-8 (byte {error.start})",
            hint="save the file as UTF-8",
        ) from error


def parse(text: str, *, trusted: bool = False) -> ClusterSpec:
    """The cluster that ``text`` describes.

    Args:
        text: a cluster file.
        trusted: ``text`` was parsed without a mistake before (the caller knows its digest), so
            the slow part, looking for mistakes, is left out.

    Raises:
        ClusterFileError: with all mistakes that were found.
    """
    document = _document(text)
    if not trusted:
        from saf_env.spec.rules import broken_rules

        mistakes = list(_schema_mistakes(document))
        mistakes += broken_rules(document, well_formed=not mistakes)
        if mistakes:
            count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
            raise ClusterFileError(
                f"the cluster file has {count}",
                mistakes=mistakes,
                hint="docs/cluster-file.md explains every key",
            )
    return _spec(document)


def size_in_bytes(text: str) -> int:
    """``"64GiB"`` as bytes; binary and decimal units both mean what they say."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", text).groups()  # type: ignore[union-attr]
    return int(float(number) * _UNITS[unit])


def _document(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClusterFileError(f"the cluster file is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ClusterFileError("the cluster file is nested too deeply") from error
    if not document:
        raise ClusterFileError(
            "the cluster file is empty", hint="start from the cluster.toml of the project"
        )
    plain = _plain(document)
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    """TOML's own dates as text, and 2.0 as 2: what a user means, whichever way it is written."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _schema_mistakes(document: dict[str, Any]) -> Iterator[str]:
    from jsonschema import Draft202012Validator

    schema = json.loads((Path(__file__).parent.parent / "schemas" / "cluster.json").read_text())
    errors = Draft202012Validator(schema).iter_errors(document)
    for error in sorted(errors, key=lambda e: [str(p) for p in e.absolute_path]):
        yield from _worded(error)


def _worded(error: ValidationError) -> Iterator[str]:
    """One line for each mistake in a schema error: key path, what was found, what is expected."""
    path = key_path(error.absolute_path)
    schema: Any = error.schema
    found: Any = error.instance
    if error.validator == "additionalProperties":
        known = list(schema.get("properties", ()))
        for key in found:
            if key not in known:
                yield f"{key_path([*error.absolute_path, key])}: unknown key; {nearest(key, known)}"
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in found:
                wanted = schema["properties"][key]
                missing = key_path([*error.absolute_path, key])
                yield f"{missing}: missing, expected {_expected(wanted)}"
    elif error.validator == "enum" and isinstance(found, str):
        close = close_word(found, [str(v) for v in schema["enum"]])
        did_you_mean = f"; did you mean {close!r}?" if close else ""
        yield f"{path}: found {shown(found)}, expected {_expected(schema)}{did_you_mean}"
    else:
        yield f"{path}: found {shown(found)}, expected {_expected(schema)}"


def _expected(schema: Mapping[str, Any]) -> str:
    reference = schema.get("$ref", "")
    if reference:
        text = (Path(__file__).parent.parent / "schemas" / "cluster.json").read_text()
        schema = json.loads(text)["$defs"][reference.rsplit("/", 1)[1]]
    return str(schema["description"])


def _spec(document: Mapping[str, Any]) -> ClusterSpec:
    cluster, python = document["cluster"], document["python"]
    containers = document.get("containers", {})
    return ClusterSpec(
        name=cluster["name"],
        port=cluster.get("port", DEFAULT_PORT),
        ports_per_node=cluster.get("ports_per_node", DEFAULT_PORTS_PER_NODE),
        base_image=containers.get("base", DEFAULT_BASE),
        tailscale=TailscaleSpec(**containers["tailscale"]) if "tailscale" in containers else None,
        python=PythonSpec(
            version=python["version"],
            source=python.get("source"),
            archives={k: Archive(**v) for k, v in sorted(python.get("archives", {}).items())},
        ),
        environment=_environment(document["environment"]),
        hosts={name: _host(name, host) for name, host in document["hosts"].items()},
        nodes=tuple(_node(node) for node in document["nodes"]),
    )


def _environment(section: Mapping[str, Any]) -> EnvironmentSpec:
    return EnvironmentSpec(
        requires=tuple(section["requires"]),
        groups={k: tuple(v) for k, v in sorted(section.get("groups", {}).items())},
        driver=tuple(section.get("driver", ())),
        exclude_newer=section.get("exclude_newer"),
    )


def _host(name: str, host: Mapping[str, Any]) -> HostSpec:
    return HostSpec(name, *(host.get(k) for k in ("address", "platform", "ssh", "port", "path")))


def _node(node: Mapping[str, Any]) -> NodeSpec:
    def size(key: str) -> int | None:
        return size_in_bytes(node[key]) if key in node else None

    return NodeSpec(
        name=node["name"],
        host=node["host"],
        kind=node["kind"],
        role=node.get("role", "worker"),
        groups=tuple(sorted(node.get("groups", ()))),
        cpus=node.get("cpus"),
        gpus=node.get("gpus"),
        memory=size("memory"),
        object_store_memory=size("object_store_memory"),
        fallback=node.get("fallback"),
        network=node.get("network", "bridge"),
        address=node.get("address"),
        port=node.get("port"),
        resources=dict(sorted(node.get("resources", {}).items())),
    )

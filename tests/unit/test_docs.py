"""The documents say what the code does: every key, command, option and check is in them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saf_env
from saf_env import errors
from saf_env.cli.parser import make_parser
from saf_env.spec.model import DEFAULT_PORT, DEFAULT_PORTS_PER_NODE
from saf_env.spec.parse import parse

ROOT = Path(saf_env.__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SCHEMA = json.loads((ROOT / "saf_env" / "schemas" / "cluster.json").read_text(encoding="utf-8"))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level, by heading without code quotes."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {head.replace("`", ""): body for head, body in zip(parts[::2], parts[1::2], strict=True)}


def rows(section: str) -> dict[str, list[str]]:
    """The rows of a section's tables by the first word in code quotes, as lists of cells."""
    found = (line.strip("| ").split(" | ") for line in section.splitlines())
    return {
        match[1]: cells[1:]
        for cells in found
        if (match := re.match(r"`(-*[A-Za-z0-9_-]+)", cells[0])) and len(cells) > 1
    }


def tables_of_the_schema() -> Iterator[tuple[str, dict[str, Any]]]:
    """Heading in docs/cluster-file.md and schema, for every table of the cluster file."""
    top = SCHEMA["properties"]
    for name in ("cluster", "python", "environment", "containers"):
        yield f"[{name}]", top[name]
    yield "[containers.tailscale]", top["containers"]["properties"]["tailscale"]
    yield "[python.archives.PLATFORM]", SCHEMA["$defs"]["archive"]
    yield "[hosts.NAME]", top["hosts"]["additionalProperties"]
    yield "[[nodes]]", top["nodes"]["items"]


@pytest.mark.parametrize(("heading", "schema"), list(tables_of_the_schema()))
def test_every_key_of_the_cluster_file_is_explained(heading: str, schema: dict[str, Any]) -> None:
    explained = rows(sections(text_of(DOCS / "cluster-file.md"))[heading])
    assert set(explained) == set(schema["properties"])
    needed = {key for key, cells in explained.items() if cells[1] == "required"}
    assert needed == set(schema.get("required", ()))


def test_defaults_of_the_cluster_file_are_those_of_the_code() -> None:
    explained = rows(sections(text_of(DOCS / "cluster-file.md"))["[cluster]"])
    assert explained["port"][1] == f"`{DEFAULT_PORT}`"
    assert explained["ports_per_node"][1] == f"`{DEFAULT_PORTS_PER_NODE}`"


def test_examples_of_a_cluster_file_are_right() -> None:
    whole, archives = re.findall(r"```toml\n(.*?)```", text_of(DOCS / "cluster-file.md"), re.DOTALL)
    assert parse(whole).nodes
    assert parse(f"{whole}\n{archives}").python.archives
    (own,) = re.findall(r"```toml\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    assert parse(own) == parse(text_of(ROOT / "cluster.toml"))


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands by name."""
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a command."""
    found = {name for action in parser._actions for name in action.option_strings}
    return {name for name in found if name.startswith("--")}


def test_every_command_is_explained() -> None:
    found = {head for head in sections(text_of(DOCS / "commands.md")) if head.startswith("saf-env")}
    assert found == {f"saf-env {name}" for name in commands()}


@pytest.mark.parametrize("name", commands())
def test_every_option_is_explained(name: str) -> None:
    explained = sections(text_of(DOCS / "commands.md"))
    common = {word for word in rows(explained["Options of every command"]) if word[:2] == "--"}
    own = {word for word in rows(explained[f"saf-env {name}"]) if word[:2] == "--"}
    assert own | common == options(commands()[name])
    for action in commands()[name]._actions:
        if not action.option_strings and action.metavar:
            assert f"`{action.metavar}`" in explained[f"saf-env {name}"]


def test_every_exit_code_is_explained() -> None:
    kinds = [c for c in vars(errors).values() if isinstance(c, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.SafEnvError)}
    for page in (DOCS / "commands.md", ROOT / "README.md"):
        explained = sections(text_of(page))["Exit codes"]
        assert {int(code) for code in re.findall(r"^\| (\d+) \|", explained, re.MULTILINE)} == {
            0,
            130,
            *codes,
        }


def test_checks_are_explained_in_their_own_words() -> None:
    location = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert location
    assert location.loader
    generate = importlib.util.module_from_spec(location)
    location.loader.exec_module(generate)
    wrong = "out of date: sh saf_env/bootstrap.sh dev python docs/generate.py"
    assert text_of(DOCS / "checks.md") == generate.render(), wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", text_of(page)):
        assert "://" not in target
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    text = text_of(page)
    for name in re.findall(r"`(?:\.saf/tool/bin/)?saf-env ([a-z]+)", text):
        assert name in commands(), name
    targets = set(re.findall(r"^([a-z-]+):.*## ", text_of(ROOT / "Makefile"), re.MULTILINE))
    for name in re.findall(r"`make ([a-z-]+)", text):
        assert name in targets, name

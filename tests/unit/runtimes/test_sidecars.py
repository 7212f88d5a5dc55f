"""Sidecars of nodes in a tailnet: stopped with their nodes, and never taken for nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.engine import Engine
from saf_env.errors import BringUpError, HostUnreachableError
from saf_env.plan.compose import (
    LABEL_CLUSTER,
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_RUN,
    LABEL_SIDECAR,
    Handed,
)
from saf_env.plan.model import ClusterPlan
from saf_env.provision.handing import check_key
from saf_env.runtimes.base import Started
from saf_env.runtimes.compose import ComposeRuntime
from saf_env.transports.base import CommandResult


def container(identity: str, **labels: str) -> dict[str, Any]:
    names = [f"/{identity}-1"]
    return {"Id": identity, "State": "running", "Status": "Up", "Labels": labels, "Names": names}


NODE = container(
    "n", **{LABEL_CLUSTER: "saf-1", LABEL_NODE: "a", LABEL_ROLE: "worker", LABEL_RUN: "r"}
)
SIDECAR = container("s", **{LABEL_CLUSTER: "saf-1", LABEL_SIDECAR: "a"})
OTHER = container("o", **{LABEL_CLUSTER: "saf-1", LABEL_SIDECAR: "b"})


class FakeEngine:
    """An engine that has ``there`` and remembers what Compose was told."""

    def __init__(self, *there: dict[str, Any], fails: str | None = None) -> None:
        self.there, self.fails = there, fails
        self.transport = SimpleNamespace(host="here")
        self.told: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def api(self) -> Iterator[FakeEngine]:
        yield self

    def answers(self) -> bool:
        return True

    def containers(self, all: bool, filters: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = filters["label"]
        marks = [w.partition("=")[0] for w in ([wanted] if isinstance(wanted, str) else wanted)]
        return [c for c in self.there if set(marks) <= c["Labels"].keys()]

    def networks(self, filters: dict[str, str]) -> list[dict[str, str]]:
        return [{"Id": "net"}]

    transport = SimpleNamespace(host="here")
    lost = False

    def gone(self) -> bool:
        return False

    def reachable(self) -> None:
        if self.lost:
            raise HostUnreachableError("here: it is gone")

    def run(self, *arguments: str, **_: object) -> CommandResult:
        self.told.append(arguments)
        code = 0 if self.fails is None else 1
        return CommandResult(("docker", *arguments), "here", code, "", self.fails or "", 0.0)


def runtime(engine: FakeEngine) -> ComposeRuntime:
    handed = Handed("1:1", Path("/token"))
    return ComposeRuntime(cast(Engine, engine), "saf-1", Path("/compose.json"), lambda _: handed)


def test_a_sidecar_is_no_node() -> None:
    assert [found.node for found in runtime(FakeEngine(NODE, SIDECAR)).find()] == ["a"]


def test_a_sidecar_is_stopped_with_its_node_and_after_it() -> None:
    engine = FakeEngine(NODE, SIDECAR, OTHER)
    assert runtime(engine).stop(["a"]) == ["a"]
    assert engine.told == [("stop", "n"), ("stop", "s"), ("rm", "--force", "--volumes", "n", "s")]


NETWORK = ("network", "rm", "net")


@pytest.mark.parametrize("names", [[], ["b"]])
def test_a_sidecar_that_is_left_alone_is_stopped(names: list[str]) -> None:
    engine = FakeEngine(OTHER)
    assert runtime(engine).stop(names) == []
    assert engine.told == [("stop", "o"), ("rm", "--force", "--volumes", "o"), NETWORK]


def test_what_has_ended_is_only_removed() -> None:
    engine = FakeEngine({**NODE, "State": "exited"})
    assert runtime(engine).stop(["a"]) == ["a"]
    assert engine.told == [("rm", "--force", "--volumes", "n"), NETWORK]


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("Error: No such container: n\n", True),
        ("Error: No such container: n\nError: the disk is gone\n", False),
        ("", False),
    ],
)
def test_what_somebody_else_has_removed_is_gone(said: str, passes: bool) -> None:
    engine = FakeEngine({**NODE, "State": "exited"}, fails=said)
    with contextlib.nullcontext() if passes else pytest.raises(BringUpError, match="cannot stop a"):
        runtime(engine).stop(["a"])


def test_a_host_that_is_lost_meanwhile_is_no_engine_that_fails() -> None:
    engine = FakeEngine({**NODE, "State": "exited"}, fails="error during connect: EOF")
    engine.lost = True
    with pytest.raises(HostUnreachableError):
        runtime(engine).stop(["a"])


def test_an_engine_that_is_silent_after_a_start_is_no_clean_end() -> None:
    """Even where the engine went away before it had told what it made."""
    engine = FakeEngine()
    engine.answers = lambda: False  # type: ignore[method-assign]
    assert runtime(engine).stop([]) == []
    with pytest.raises(BringUpError, match="the containers of a may still be there"):
        runtime(engine).stop([], [Started("a", "r", 0, "")])


COMPOSE = {"com.docker.compose.project": "saf-1"}


@pytest.mark.parametrize("labels", [COMPOSE, {**COMPOSE, LABEL_CLUSTER: "saf-2"}])
def test_a_compose_project_of_somebody_else_is_left_alone(
    labels: dict[str, str], plan: ClusterPlan
) -> None:
    engine = FakeEngine(NODE, container("x", **labels))
    with pytest.raises(BringUpError, match="not this cluster's: x-1") as caught:
        runtime(engine).start(plan, [], {})
    assert "docker rm --force x-1" in caught.value.hint
    assert engine.told == []


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [("key", 0o644, "0644"), ("key", 0o640, "0640"), ("", 0o600, "no file with a key")],
)
def test_a_key_that_is_not_fit_is_refused(text: str, mode: int, told: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(mode)
    with pytest.raises(BringUpError, match=told):
        check_key(key)


def test_a_key_that_is_missing_is_refused_and_a_private_one_taken(tmp_path: Path) -> None:
    with pytest.raises(BringUpError, match="cannot read the tailnet's auth key"):
        check_key(tmp_path / "key")
    with pytest.raises(BringUpError, match="no file with a key"):
        check_key(tmp_path)
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o600)
    check_key(tmp_path / "key")

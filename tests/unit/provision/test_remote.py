"""What another host lacks, and what it is asked to make."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from saf_env.errors import ToolchainError
from saf_env.lock.model import Interpreter
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, HostPlan
from saf_env.provision import there
from saf_env.provision.environments import marker_of
from saf_env.provision.remote import _code, unready
from saf_env.transports.base import CommandResult, FileTransport
from saf_env.uv import Uv

BETA = HostPlan("beta", "100.64.0.2", "linux-x86_64", "beta", None, Path(".saf-env/studio"))


class Way:
    """A transport that has a text for each file it is asked for."""

    def __init__(self, texts: Sequence[str], code: int = 0) -> None:
        self.texts, self.code = texts, code

    def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
        assert argv[:2] == ["sh", "-c"]
        assert len(argv) - 4 == len(self.texts) or self.code
        text = "".join(f"{text}\n" for text in self.texts)
        return CommandResult(tuple(argv), "beta", self.code, text, "", 0.1)


def environments(plan: ClusterPlan) -> list[EnvironmentPlan]:
    return [node.environment for node in plan.nodes]


def lacking(plan: ClusterPlan, texts: Sequence[str], code: int = 0) -> list[str]:
    found = unready(BETA, cast(FileTransport, Way(texts, code)), environments(plan))
    return [env.key for env in found]


def test_what_a_host_has_is_not_made_again(plan: ClusterPlan) -> None:
    one, two = environments(plan)
    made = [json.dumps({**marker_of(env), "manifest_sha256": "x"}) for env in (one, two)]
    assert lacking(plan, made) == []
    assert lacking(plan, ["", made[1]]) == [one.key]
    assert lacking(plan, [made[0], made[0]]) == [two.key], "another environment's marker"
    assert lacking(plan, [made[0][:-9], "[]"]) == [one.key, two.key]
    assert lacking(plan, [], code=1) == [one.key, two.key]


def test_a_request_is_read_as_it_was_written(
    plan: ClusterPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (env, _), seen = environments(plan), []
    pack = Interpreter("linux-x86_64", "3.12.1", "archive", "packed", ".saf/x.tar.gz", "a" * 64)

    def make(env: EnvironmentPlan, uv: Uv, *_: Any, rebuild: bool, pack: Interpreter) -> None:
        seen.append((env, uv, rebuild, pack))

    monkeypatch.setattr(there, "ensure_environment", make)
    settings = {"UV_NO_INDEX": "1"}
    wish = there.request([env], pack, "beta", Path("h"), Path("u"), settings, True)
    assert there.make(json.loads(json.dumps(wish))) == {}

    ((got, uv, rebuild, packed),) = seen
    assert dataclasses.replace(got, path=env.path) == dataclasses.replace(
        env, packages=dict(env.packages), lock=dataclasses.replace(env.lock, groups=got.lock.groups)
    )
    assert got.path.is_absolute()
    assert (uv.transport.host, uv.home, rebuild, packed) == ("beta", Path.cwd() / "h", True, pack)
    assert uv.environ["UV_NO_INDEX"] == "1"


def test_a_failure_is_an_answer(plan: ClusterPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise ToolchainError("no space", hint="make some")

    monkeypatch.setattr(there, "ensure_environment", make)
    wish = there.request(environments(plan), None, "beta", Path("h"), Path("u"), {}, False)
    assert there.make(wish) == {"error": "no space", "hint": "make some"}


def test_what_is_sent_is_the_same_every_time() -> None:
    first = _code()
    _code.cache_clear()
    assert _code() == first

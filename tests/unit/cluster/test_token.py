"""The token: made once, private, mended only where that harms nobody."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster.token import ensure_token, fetch_token, mend_token
from saf_env.errors import BringUpError, HostUnreachableError, UsageError
from saf_env.plan.build import token_path
from saf_env.plan.model import ClusterPlan
from saf_env.transports.base import CommandResult, Transport


def test_a_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = token_path(tmp_path, "local")

    assert ensure_token(tmp_path, "local")
    made = path.read_text()
    assert not ensure_token(tmp_path, "local")

    assert path.read_text() == made
    assert len(bytes.fromhex(made)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_clusters_have_two_tokens(tmp_path: Path) -> None:
    ensure_token(tmp_path, "one")
    ensure_token(tmp_path, "two")

    assert token_path(tmp_path, "one").read_text() != token_path(tmp_path, "two").read_text()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A token as it should be."""
    ensure_token(tmp_path, "local")
    return token_path(tmp_path, "local")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def mend(home: Path, *, running: bool = False) -> str:
    return "\n".join(mend_token(home, "local", running=running))


def test_a_token_in_order_is_left_alone_without_a_word(tmp_path: Path, token: Path) -> None:
    text = token.read_text()

    assert mend(tmp_path) == ""

    assert (token.read_text(), mode(token)) == (text, 0o600)


@pytest.mark.parametrize("wrong", [0o644, 0o640, 0o700])
def test_a_token_that_others_can_read_is_closed(tmp_path: Path, token: Path, wrong: int) -> None:
    text = token.read_text()
    token.chmod(wrong)

    assert mend(tmp_path, running=True) == (
        f"made the token readable by you only: its mode was {wrong:04o}"
    )

    assert (token.read_text(), mode(token)) == (text, 0o600)


@pytest.mark.parametrize(
    ("text", "told"), [("", "it is empty"), ("a" * 64 + "\n", "newline"), ("abc", "shorter than")]
)
def test_a_useless_token_is_replaced_while_nothing_runs(
    tmp_path: Path, token: Path, text: str, told: str
) -> None:
    token.write_text(text)

    left = mend(tmp_path, running=True)
    assert token.read_text() == text
    assert told in left
    assert "`saf-env down`" in left

    assert told in mend(tmp_path)
    assert len(bytes.fromhex(token.read_text())) == 32
    assert mode(token) == 0o600
    assert mend(tmp_path) == ""


def test_a_link_and_its_target_are_left_alone(tmp_path: Path, token: Path) -> None:
    target = tmp_path / "target"
    token.rename(target)
    target.chmod(0o644)
    token.symlink_to(target)

    assert "no plain file" in mend(tmp_path)

    assert (token.is_symlink(), mode(target)) == (True, 0o644)


def test_a_folder_in_its_place_is_left_alone(tmp_path: Path, token: Path) -> None:
    token.unlink()
    token.mkdir(mode=0o755)

    assert "no plain file" in mend(tmp_path)

    assert mode(token) == 0o755


def test_somebody_elses_token_is_left_alone(
    tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token.chmod(0o644)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)

    told = mend(tmp_path)

    assert f"it belongs to user {owner}" in told
    assert "remove it, then run `saf-env check --fix`" in told
    assert mode(token) == 0o644


def test_a_mode_that_cannot_be_changed_is_told(
    tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    token.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)

    assert "Operation not permitted" in mend(tmp_path)
    token.unlink()
    with pytest.raises(UsageError, match="cannot make the token"):
        ensure_token(tmp_path, "local")


# From the head's host


def there(answer: str | HostUnreachableError, code: int = 0) -> Transport:
    """The way to a host that has ``answer`` for a token."""

    def run(argv: list[str], **_: Any) -> CommandResult:
        if isinstance(answer, HostUnreachableError):
            raise answer
        return CommandResult(tuple(argv), "alpha", code, answer, "", 0.0)

    return cast(Transport, SimpleNamespace(host="alpha", run=run))


def test_it_is_fetched_and_private(tmp_path: Path, plan: ClusterPlan) -> None:
    path = token_path(tmp_path, "local")
    fetch_token(path, plan, there("ab" * 32))
    assert path.read_text() == "ab" * 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "way",
    [
        there("<html>log in</html>"),
        there("", code=1),
        there(HostUnreachableError("alpha: it is off")),
    ],
)
def test_what_cannot_be_had_is_told_with_the_way_to_bring_it(
    tmp_path: Path, plan: ClusterPlan, way: Transport
) -> None:
    path = token_path(tmp_path, "local")
    with pytest.raises(BringUpError, match="this host has no token of cluster local") as told:
        fetch_token(path, replace(plan, controller="gamma"), way)
    assert str(path) in told.value.hint
    assert "run `saf-env up` on gamma, or bring" in told.value.hint
    assert not path.exists()


def test_whoever_has_to_trust_the_heads_host_is_told_how(tmp_path: Path, plan: ClusterPlan) -> None:
    way = there(HostUnreachableError("alpha: its host key is not known", hint="trust it with X"))
    with pytest.raises(BringUpError, match="its host key is not known") as told:
        fetch_token(token_path(tmp_path, "local"), plan, way)
    assert told.value.hint.startswith("trust it with X; or run `saf-env up` on ")

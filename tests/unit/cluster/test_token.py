"""The token: made once, private, never replaced."""

from __future__ import annotations

import stat
from pathlib import Path

from saf_env.cluster.token import ensure_token
from saf_env.plan.build import token_path


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

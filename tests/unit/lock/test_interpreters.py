"""Which source the interpreters of a lock are taken from."""

from __future__ import annotations

import pytest

from saf_env.lock import interpreters
from saf_env.lock.interpreters import Choice, Wish, choose
from saf_env.lock.model import Interpreter
from saf_env.spec.model import PythonSpec
from saf_env.uv import Uv


def test_a_stalled_list_of_builds_lets_another_source_be_tried(
    stalled_uv: Uv, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Interpreter("linux-x86_64", "3.12.1", "system", "3.12.1 (main)", "", "c" * 64)
    choice = Choice("3.12.1", {"linux-x86_64": here}, {})
    monkeypatch.setattr(interpreters, "_system", lambda _wish, _uv: choice)
    wish = Wish(PythonSpec("3.12", None, {}), ["linux-x86_64"], stalled_uv.home)
    said: list[str] = []

    assert choose(wish, stalled_uv, said.append) == choice

    assert "`uv python list` did not finish within 60 s" in said[0]
    assert "source system instead" in said[0]

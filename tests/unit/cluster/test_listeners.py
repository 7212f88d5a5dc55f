"""When who listens ends; what it answers is seen with real processes, in the integration tests."""

from __future__ import annotations

import os
import select
import time
from typing import Any

import pytest

from saf_env.cluster import listeners
from saf_env.cluster.listeners import listen

REQUEST: dict[str, Any] = {"ports": [], "question": "q", "answer": "a", "patience": 0.1}


class MacPoll:
    """Tells hang-ups only of what is watched for them, and here all have hung up."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def register(self, number: int, events: int) -> None:
        if events & select.POLLHUP:
            self.told.append((number, select.POLLHUP))

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if not self.told:
            time.sleep(milliseconds / 1000)
        return self.told


def seconds_of(**more: Any) -> float:
    began = time.monotonic()
    listen({**REQUEST, **more})
    return time.monotonic() - began


def test_it_ends_when_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "poll", MacPoll)
    assert seconds_of(seconds=1.0) < 0.5


def test_it_ends_when_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_LOOK", 0.02)
    parents = iter([7, 7])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
    assert seconds_of(seconds=1.0) < 0.5


def test_it_ends_in_time() -> None:
    assert 0.1 <= seconds_of(seconds=0.1) < 1.0

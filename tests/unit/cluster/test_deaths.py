"""What is told of a node that died."""

from __future__ import annotations

import pytest

from saf_env.cluster.deaths import last_words, refuse_dead
from saf_env.errors import BringUpError
from saf_env.runtimes.base import Died


def test_last_words_are_no_stack() -> None:
    log = "begin\n" + "x" * 600 + "\n/lib/raylet(+0x1ab) [0x7f] main\n\nraylet has ended\n"

    assert last_words(log) == ["begin", "x" * 500, "raylet has ended"]
    assert last_words(log, 1) == ["raylet has ended"]
    assert last_words("") == []


def test_the_first_of_the_dead_is_told() -> None:
    refuse_dead([])
    with pytest.raises(BringUpError, match="beta died while the cluster was starting") as caught:
        refuse_dead([Died("beta", "raylet has ended"), Died("gamma", "")])
    assert "    raylet has ended" in caught.value.message
    assert "saf-env logs beta" in caught.value.hint

"""The words of ``saf-env test``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.errors import UsageError
from saf_env.harness.selection import Candidate, choose, matches

NODES = ["head", "linux"]
ALL = [
    Candidate(f"test_{work}[{node}]", work, node)
    for work in ("pi", "matmul")
    for node in NODES
    if (work, node) != ("matmul", "linux")
] + [Candidate("test_all_at_once", "all_at_once", "")]


def chosen(*words: str) -> list[str]:
    return [c.id for c, keep in zip(ALL, choose(words, ALL, NODES), strict=True) if keep]


def test_no_word_is_everything() -> None:
    assert chosen() == [c.id for c in ALL]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["head"], ["test_pi[head]", "test_matmul[head]"]),
        (["pi"], ["test_pi[head]", "test_pi[linux]"]),
        (["pi", "linux"], ["test_pi[linux]"]),
        (["linux", "pi", "matmul"], ["test_pi[linux]"]),
        (["head", "linux", "pi"], ["test_pi[head]", "test_pi[linux]"]),
        (["test_matmul[head]"], ["test_matmul[head]"]),
        (["test_matmul[head]", "linux"], ["test_pi[linux]", "test_matmul[head]"]),
        (["mat*"], ["test_matmul[head]"]),
        (["p?"], ["test_pi[head]", "test_pi[linux]"]),
        (["all_at_once"], ["test_all_at_once"]),
        (["matmul", "linux"], []),
    ],
)
def test_words(words: list[str], ids: list[str]) -> None:
    assert chosen(*words) == ids


@pytest.mark.parametrize("word", ["haed", "", "[head]", "test_pi", "-x", "$(id)"])
def test_a_word_for_nothing_is_refused_with_what_there_is(word: str) -> None:
    with pytest.raises(UsageError, match=r"Nodes: head, linux. Workloads: all_at_once, matmul, pi"):
        choose(["head", word], ALL, NODES)


@given(st.text(max_size=20))
def test_a_word_without_stars_fits_itself_alone(word: str) -> None:
    plain = word.replace("*", "").replace("?", "")
    assert matches(plain, plain)
    assert not matches(plain, plain + "x")
    assert matches("*", word)

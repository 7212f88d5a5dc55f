from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saf_env.lock import toml

# TOML holds no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = st.one_of(texts, st.booleans(), st.integers(-(2**40), 2**40), st.lists(texts, max_size=3))
tables = st.recursive(
    st.dictionaries(texts, leaves, max_size=4),
    lambda inner: st.dictionaries(texts, st.one_of(leaves, inner), max_size=4),
    max_leaves=12,
)


@given(tables)
def test_what_is_written_is_read(table: dict[str, object]) -> None:
    assert toml.loads(toml.dumps(table)) == table


def test_one_item_a_line() -> None:
    text = toml.dumps({"a": {"x y": "é\x7f", "list": ["b", "c"]}, "b": 1})
    assert text == 'b = 1\n\n[a]\n"x y" = "é\\u007f"\nlist = [\n    "b",\n    "c",\n]\n'

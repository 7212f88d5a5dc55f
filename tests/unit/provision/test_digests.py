"""What a host has printed of its files."""

from __future__ import annotations

from saf_env.provision.digests import parse


def test_each_file_has_a_line() -> None:
    text = f"{'1' * 64}  -\n\n{'2' * 64}  -\nmore\n"
    assert parse(text, 3) == (["1" * 64, "", "2" * 64], ["more", ""])


def test_what_was_not_printed_is_not_there() -> None:
    assert parse("", 2)[0] == ["", ""]
    assert parse(f"{'1' * 64}  -", 2)[0] == ["1" * 64, ""]

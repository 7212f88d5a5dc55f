"""What locked packages are built for."""

from __future__ import annotations

import pytest

from tests.unit.preflight.test_checks import changed, make_facts, make_node, verdict


@pytest.mark.parametrize(
    ("check", "path", "value", "level", "words"),
    [
        ("os-version", "platform.version", "glibc 2.31", "fail", "glibc 2.35 or newer"),
        ("os-version", "platform.version", "", "fail", "not glibc"),
        ("os-version", "platform.version", "glibc 2.35", "ok", "glibc 2.35"),
        ("python-arch", "interpreter.machine", "aarch64", "fail", "expected x86_64, found aarch64"),
        ("os-version", "platform.version", "glibc ?", "skip", "expected a version"),
    ],
)
def test_systems_and_processors(
    check: str, path: str, value: object, level: str, words: str
) -> None:
    node = make_node("head", 6380)
    found = verdict(check, changed(make_facts(node), path, value), node)
    assert found.level == level, found
    assert words in f"{found.summary} {found.evidence} {found.hint}"
    assert level != "fail" or found.hint

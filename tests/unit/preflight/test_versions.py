"""What locked packages are built for."""

from __future__ import annotations

import pytest

from saf_env.platforms import PLATFORMS
from tests.unit.preflight.macs import with_mlx
from tests.unit.preflight.test_checks import changed, make_facts, make_node, verdict


@pytest.mark.parametrize(
    ("check", "path", "value", "level", "words"),
    [
        ("os-version", "platform.version", "glibc 2.34", "warn", "packages other than MLX"),
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


@pytest.mark.parametrize(
    ("platform", "version", "words"),
    [
        ("linux-x86_64", "glibc 2.34", "MLX needs glibc 2.35 or newer"),
        ("macos-arm64", "macOS 13.7", "MLX needs macOS 14 or newer"),
    ],
)
def test_only_mlx_is_refused_an_old_system(platform: str, version: str, words: str) -> None:
    plain = make_node("head", 6380, platform)
    facts = changed(make_facts(plain), "platform.version", version)
    found = verdict("os-version", facts, plain)
    assert (found.level, found.evidence) == ("warn", version)
    found = verdict("os-version", facts, with_mlx(plain))
    assert (found.level, found.summary) == ("fail", words)
    assert found.hint


def test_packages_are_locked_for_the_oldest_linux() -> None:
    for platform in PLATFORMS.values():
        major, minor = platform.oldest
        tag = f"manylinux_{major}_{minor}" if platform.os == "linux" else "darwin"
        assert platform.uv_platform.endswith(tag)

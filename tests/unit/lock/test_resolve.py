from __future__ import annotations

from dataclasses import replace

import pytest

from saf_env.errors import LockError
from saf_env.lock import toml
from saf_env.lock.packages import Pin
from saf_env.lock.resolve import check, explanation, instant, preferences, project, resolve
from saf_env.platforms import PLATFORMS
from saf_env.spec.model import ClusterSpec
from saf_env.transports.base import CommandResult
from saf_env.uv import Uv

A = "sha256:" + "a" * 64


def test_what_uv_is_asked(studio: ClusterSpec) -> None:
    asked = toml.loads(project(studio, "3.13.7"))
    assert asked["project"]["dependencies"] == ["numpy", "ray==2.60.0"]
    box = 'sys_platform == "linux" and platform_machine == "x86_64"'
    assert asked["dependency-groups"]["cuda"] == [f"cupy; {box}"]
    assert asked["dependency-groups"]["driver"] == ["pytest<10,>=9"]
    assert "unused" not in asked["dependency-groups"]
    settings = asked["tool"]["uv"]
    assert settings["environments"] == [
        f"python_full_version == '3.13.7' and {PLATFORMS[name].marker}"
        for name in ("linux-arm64", "linux-x86_64", "macos-arm64")
    ]
    assert settings["required-environments"] == settings["environments"]
    assert settings["no-build"] is True
    assert settings["exclude-newer"] == "2026-11-11T00:00:00Z"


def test_a_groups_own_markers_are_kept(studio: ClusterSpec) -> None:
    asked = toml.loads(project(studio, "3.13.7"))
    mac, box = asked["dependency-groups"]["mlx"]
    assert mac.startswith('mlx; sys_platform == "darwin" and (')
    assert box.startswith('mlx[cpu]; sys_platform == "linux" and (')
    assert 'platform_machine == "arm64"' in mac


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("numpy @ https://x.test/numpy.whl", "names an address"),
        ("numpy @ file:///x", "names an address"),
        ("git+https://x.test/x", "is not a requirement"),
        ("-r other.txt", "is not a requirement"),
        ("--index-url https://x.test", "is not a requirement"),
        ("./folder", "is not a requirement"),
    ],
)
def test_only_names_and_versions_go_to_uv(
    studio: ClusterSpec, requirement: str, message: str
) -> None:
    environment = replace(studio.environment, requires=(requirement,))
    with pytest.raises(LockError, match=message):
        project(replace(studio, environment=environment), "3.13.7")


def test_versions_to_keep_are_a_lock_for_uv(studio: ClusterSpec) -> None:
    text = preferences(studio, "3.13.7", {"numpy": "2.4.1", "idna": "3.10"})
    lock = toml.loads(text)
    assert [(p["name"], p["version"]) for p in lock["package"]] == [
        ("idna", "3.10"),
        ("numpy", "2.4.1"),
    ]
    settings = toml.loads(project(studio, "3.13.7"))["tool"]["uv"]
    assert lock["resolution-markers"] == settings["environments"]
    assert lock["options"]["fork-strategy"] == settings["fork-strategy"]


def test_a_day_ends_at_midnight_utc() -> None:
    assert instant("2026-12-31") == "2027-01-01T00:00:00Z"
    assert instant("2026-12-31T10:00:00Z") == "2026-12-31T10:00:00Z"


def test_a_pin_without_a_digest_is_refused() -> None:
    with pytest.raises(LockError, match="no sha256 for x 1 of environment base"):
        check({"base": [Pin("x", "1", "", ())]})


def test_what_travels_has_one_version() -> None:
    check({"base": [Pin("x", "1", "", (A,))], "mlx": [Pin("x", "2", "", (A,))]})
    with pytest.raises(LockError, match="numpy would have different versions"):
        check({"base": [Pin("numpy", "1", "", (A,))], "mlx": [Pin("numpy", "2", "", (A,))]})


def test_uvs_words_are_shown_without_the_one_that_misleads() -> None:
    said = (
        "error: No solution\n  cause: Because x\n\n"
        "hint: While the active Python version is 3.11, y\n\nhint: Wheels are required"
    )
    result = CommandResult(("uv",), "here", 1, "", said, 0.1)
    assert explanation(result) == (
        "    error: No solution\n      cause: Because x\n\n    hint: Wheels are required"
    )


def test_a_stalled_resolution_is_told_as_one(studio: ClusterSpec, stalled_uv: Uv) -> None:
    with pytest.raises(LockError, match="lockfiles/ is as it was"):
        resolve(studio, "3.13.7", stalled_uv, keep={}, upgrade_packages=(), notify=lambda _: None)

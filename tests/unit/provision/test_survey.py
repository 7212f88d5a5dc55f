"""What another host says of itself, and why no node can run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from saf_env.plan.model import HostPlan
from saf_env.provision.survey import NEEDED, read, refusals

LINUX = {
    "system": "Linux",
    "machine": "x86_64",
    "glibc": "glibc 2.36",
    "macos": "",
    "login": "/home/anna b",
    "free": "10485760",
}
# As `uname`, `getconf` and `sw_vers` answer on a Mac Studio: there is no glibc to ask for.
MAC = {
    "system": "Darwin",
    "machine": "arm64",
    "glibc": "",
    "macos": "15.6",
    "login": "/Users/anna",
    "free": "971234567",
}


def host(platform: str, home: str = ".saf-env/studio") -> HostPlan:
    return HostPlan("beta", "100.64.0.2", platform, "beta", None, Path(home))


@pytest.mark.parametrize(("said", "platform"), [(LINUX, "linux-x86_64"), (MAC, "macos-arm64")])
def test_a_host_as_planned(said: dict[str, str], platform: str) -> None:
    seen = read(said)
    assert refusals(host(platform), seen, roomy=True, mlx=True) == []
    assert seen.free == int(said["free"]) * 1024
    assert str(seen.login / host(platform).home).endswith("/.saf-env/studio")


@pytest.mark.parametrize(
    ("said", "platform", "words"),
    [
        (LINUX, "macos-arm64", ["Linux on x86_64", "planned as macos-arm64"]),
        (LINUX | {"machine": "aarch64"}, "linux-x86_64", ["Linux on aarch64"]),
        (LINUX | {"glibc": "glibc 2.31"}, "linux-x86_64", ["glibc 2.31", "2.35 or newer"]),
        (LINUX | {"glibc": ""}, "linux-x86_64", ["no glibc", "need glibc 2.35"]),
        (MAC | {"macos": "13.7.1"}, "macos-arm64", ["macOS 13.7.1", "14 or newer"]),
        (LINUX | {"free": "1000"}, "linux-x86_64", ["0.0 GiB are free for ~/.saf-env/studio"]),
        (
            {**LINUX, "free": "", "refused": "mkdir: Read-only file system"},
            "linux-x86_64",
            ["~/.saf-env/studio cannot be made", "Read-only file system", "path of host beta"],
        ),
        ({}, "linux-x86_64", ["planned as linux-x86_64"]),
    ],
)
def test_a_host_that_cannot_be(said: dict[str, str], platform: str, words: list[str]) -> None:
    found = refusals(host(platform), read(said), roomy=True, mlx=True)
    assert found
    assert all(word in "; ".join(found) for word in words), found


def test_an_old_system_is_refused_for_mlx_only() -> None:
    for platform, old in (
        ("linux-x86_64", LINUX | {"glibc": "glibc 2.34"}),
        ("macos-arm64", MAC | {"macos": "13.7.1"}),
    ):
        assert refusals(host(platform), read(old), roomy=True, mlx=True)
        assert refusals(host(platform), read(old), roomy=True, mlx=False) == []
    musl = read(LINUX | {"glibc": ""})
    assert refusals(host("linux-x86_64"), musl, roomy=True, mlx=False)


def test_room_is_needed_only_for_what_is_still_to_be_made() -> None:
    full = read(LINUX | {"free": str(NEEDED // 1024 - 1)})
    assert refusals(host("linux-x86_64"), full, roomy=True, mlx=True)
    assert refusals(host("linux-x86_64"), full, roomy=False, mlx=True) == []


def test_an_absolute_folder_is_shown_as_it_is() -> None:
    broken = read({**LINUX, "refused": "no"})
    (found,) = refusals(host("linux-x86_64", "/data/saf"), broken, roomy=False, mlx=True)
    assert found.startswith("/data/saf cannot be made")

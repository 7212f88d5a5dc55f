"""Which wheels a platform takes."""

from __future__ import annotations

from packaging.tags import parse_tag

from saf_env.platforms import PLATFORMS
from saf_env.provision.wheels import tags


def test_linux_takes_what_is_no_newer_than_its_glibc() -> None:
    found = list(tags("linux-x86_64"))
    assert found[0] == "manylinux_2_35_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64"} <= {*found}
    assert "manylinux_2_36_x86_64" not in found
    assert len(set(found)) == len(found)


def test_every_platform_has_tags_of_its_own_machine() -> None:
    machines = {"macos-arm64": "arm64", "linux-arm64": "aarch64", "linux-x86_64": "x86_64"}
    for name in PLATFORMS:
        found = list(tags(name))
        assert found
        assert all(tag.endswith(machines[name]) for tag in found)
        assert all(parse_tag(f"cp313-cp313-{tag}") for tag in found)

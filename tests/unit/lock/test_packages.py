from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saf_env.lock.packages import (
    Pin,
    any_of,
    applies,
    normalised,
    packages_for,
    parse,
    render,
    simplified,
)
from saf_env.platforms import PLATFORMS

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
EXPORTED = f"""\
# a comment
numpy==2.5.4 ; python_full_version == '3.13.7' and ((platform_machine == 'arm64' and \
sys_platform == 'darwin') or (platform_machine == 'x86_64' and sys_platform == 'linux')) \\
    --hash={B} \\
    --hash={A}
mlx-metal==0.32.4 ; python_full_version == '3.13.7' and platform_machine == 'arm64' and \
sys_platform == 'darwin' \\
    --hash={A}
Typing_Extensions==4.16.0 --hash={A}
colorama==0.4 ; sys_platform == 'win32' \\
    --hash={A}
"""
HERE = ("linux-x86_64", "macos-arm64")

digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda d: f"sha256:{d}")
pins = st.builds(
    Pin,
    st.from_regex(r"[a-z]([a-z0-9]|-(?=[a-z0-9])){0,20}", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(rc1|\.post2|\+cpu)?", fullmatch=True),
    st.lists(st.sampled_from(sorted(PLATFORMS)), unique=True).map(lambda p: any_of(p) if p else ""),
    st.lists(digests, min_size=1, max_size=3, unique=True).map(lambda d: tuple(sorted(d))),
)


def test_what_uv_exports_is_read_and_simplified() -> None:
    found = simplified(parse(EXPORTED), HERE, "3.13.7")
    mac = PLATFORMS["macos-arm64"].marker
    assert found == [
        Pin("numpy", "2.5.4", "", (A, B)),
        Pin("mlx-metal", "0.32.4", mac, (A,)),
        Pin("typing-extensions", "4.16.0", "", (A,)),
    ]


@pytest.mark.parametrize("line", ["x", "x>=1", "-e .", "x @ https://x.test/x.whl", "<<<<<<< HEAD"])
def test_what_is_no_pin_is_passed_over(line: str) -> None:
    assert parse(f"{line} --hash={A}\ny==1 --hash=md5:123 --hash={A}\n") == [
        Pin("y", "1", "", (A,))
    ]


@given(st.lists(pins, max_size=8, unique_by=lambda pin: pin.name))
def test_pins_survive_the_file(given_pins: list[Pin]) -> None:
    text = render(given_pins)
    assert parse(text) == sorted(given_pins, key=lambda pin: pin.name)
    assert render(parse(text)) == text


@given(st.text())
def test_any_text_can_be_asked(text: str) -> None:
    assert isinstance(parse(text), list)


def test_packages_of_one_platform() -> None:
    text = render(simplified(parse(EXPORTED), HERE, "3.13.7"))
    both = {"numpy": "2.5.4", "typing-extensions": "4.16.0"}
    assert packages_for(text, "linux-x86_64", "3.13.7") == both
    assert packages_for(text, "macos-arm64", "3.13.7") == {**both, "mlx-metal": "0.32.4"}


@pytest.mark.parametrize(
    ("marker", "where"),
    [
        ("", set(PLATFORMS)),
        (PLATFORMS["macos-arm64"].marker, {"macos-arm64"}),
        (any_of(HERE), set(HERE)),
        ("sys_platform == 'linux'", {"linux-arm64", "linux-x86_64"}),
        ("python_version < '3.12'", set()),
        ("python_full_version >= '3.13.7' and os_name == 'posix'", set(PLATFORMS)),
        ("platform_python_implementation == 'PyPy'", set()),
    ],
)
def test_markers(marker: str, where: set[str]) -> None:
    assert {name for name in PLATFORMS if applies(marker, name, "3.13.7")} == where


def test_names_are_normalised() -> None:
    assert normalised("Foo__Bar.baz") == "foo-bar-baz"

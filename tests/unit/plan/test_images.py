"""The key of an image: it follows all that goes in, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from saf_env.plan import images
from saf_env.plan.images import image_plan
from saf_env.plan.model import ClusterPlan, EnvironmentPlan, ImagePlan
from saf_env.platforms import PLATFORMS

BASE = "sha256:" + "1" * 64
WHEEL = "2" * 64


@pytest.fixture
def environment(plan: ClusterPlan) -> EnvironmentPlan:
    return plan.head.environment


def planned(environment: EnvironmentPlan, base: str = BASE, wheel: str = WHEEL) -> ImagePlan:
    return image_plan(environment, base, wheel)


def with_text(environment: EnvironmentPlan, text: str) -> EnvironmentPlan:
    return dataclasses.replace(environment, lock=dataclasses.replace(environment.lock, text=text))


def test_the_tag_names_what_is_in_it(environment: EnvironmentPlan) -> None:
    image = planned(environment)
    assert re.fullmatch(r"[0-9a-f]{12}", image.key)
    assert image.tag == f"saf-env:mlx-linux-x86_64-{image.key}"
    assert image == planned(environment)


def test_the_tag_is_one_whatever_the_environment_is_called(environment: EnvironmentPlan) -> None:
    named = dataclasses.replace(environment.lock, name="+".join(["mlx", "torch"] * 40))
    tag = planned(dataclasses.replace(environment, lock=named)).tag
    assert re.fullmatch(r"saf-env:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag)


def test_all_that_goes_in_changes_the_key(environment: EnvironmentPlan) -> None:
    other_python = dataclasses.replace(environment.interpreter, sha256="3" * 64)
    keys = [
        planned(environment).key,
        planned(environment, base="debian@sha256:" + "1" * 64).key,
        planned(environment, wheel="4" * 64).key,
        planned(with_text(environment, environment.lock.text.replace("a" * 64, "5" * 64))).key,
        planned(dataclasses.replace(environment, uv_version="9.9.9")).key,
        planned(dataclasses.replace(environment, interpreter=other_python)).key,
    ]
    assert len(set(keys)) == len(keys)


def test_what_builds_it_changes_the_key(
    environment: EnvironmentPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files = planned(environment).key, images.build_files()
    for path in files:
        changed = {**files, path: files[path] + b"\n"}
        monkeypatch.setattr(images, "build_files", lambda changed=changed: changed)
        assert planned(environment).key != before


def test_comments_and_folders_do_not_change_the_key(environment: EnvironmentPlan) -> None:
    commented = with_text(environment, "# another cluster\n" + environment.lock.text)
    moved = dataclasses.replace(environment, path=Path("/elsewhere"), key="other")
    assert planned(commented) == dataclasses.replace(planned(environment), environment=commented)
    assert planned(moved).key == planned(environment).key


def test_nothing_is_pulled_by_the_dockerfile_itself() -> None:
    text = images.build_files()["Dockerfile"].decode()
    assert not re.search(r"^#\s*syntax", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}


def test_the_build_knows_the_oldest_glibc() -> None:
    text = images.build_files()["interpreter/interpreter.sh"].decode()
    assert "$GLIBC_MIN" in text
    for platform in PLATFORMS.values():
        if platform.os == "linux":
            assert re.search(r"manylinux_\d+_\d+$", platform.uv_platform)

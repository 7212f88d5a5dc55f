"""The gate: what it says of nodes that may not join."""

from __future__ import annotations

import pytest

from saf_env.cluster.gate import refuse_failed
from saf_env.errors import PreflightError
from saf_env.preflight.base import Finding


def test_warnings_stop_nobody() -> None:
    refuse_failed([Finding("nofile", "head", "warn", "at most 1024 open files")])


def test_a_finding_of_several_nodes_is_told_once_with_its_remedy() -> None:
    found = [
        Finding("disk", name, "fail", "the disk is full", "1 MB free", "make room")
        for name in ("head", "linux")
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message == (
        "not fit to join: head, linux. Nothing was started.\n"
        "    head, linux: disk: the disk is full\n"
        "        1 MB free\n"
        "        remedy: make room"
    )


@pytest.mark.parametrize(("check", "helps"), [("packages-locked", True), ("disk", False)])
def test_fix_is_named_only_where_it_can_help(check: str, helps: bool) -> None:
    with pytest.raises(PreflightError) as caught:
        refuse_failed([Finding(check, "head", "fail", "wrong")])

    assert ("--fix" in caught.value.hint) is helps


def test_a_requirement_that_could_not_be_judged_is_refused_with_the_reason() -> None:
    found = [
        Finding("shm", "head", "skip", "could not be judged", "no /dev/shm"),
        Finding("temp-dir", "head", "skip", "could not be judged", "PermissionError: /tmp/x"),
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message == (
        "not fit to join: head. Nothing was started.\n"
        "    head: temp-dir: could not be judged\n"
        "        PermissionError: /tmp/x"
    )
    assert "--ignore ID" in caught.value.hint


def test_what_a_failure_explains_is_not_told_again() -> None:
    absent = "/p/.saf/envs/base: there is no such file"
    found = [
        Finding("packages-locked", "head", "fail", "the environment is not installed", absent),
        Finding("python-build", "head", "skip", "could not be judged", "there is no such file"),
        Finding("python-build", "linux", "skip", "could not be judged", "there is no such file"),
    ]

    with pytest.raises(PreflightError) as caught:
        refuse_failed(found)

    assert caught.value.message.startswith("not fit to join: head, linux.")
    assert "    linux: python-build" in caught.value.message
    assert "    head: python-build" not in caught.value.message

"""Fingerprints: what they depend on, and that a node cannot show one that it has not earned."""

from __future__ import annotations

from typing import Any

import pytest

from saf_env.plan.fingerprint import actual_fingerprint, fingerprint

PLANNED = fingerprint(version="3.12.1", build="20260814", sha256="a" * 64, packages={"ray": "2"})


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "interpreter": {"version": "3.12.1", "build": "3.12.1 (main)", "digest": "b" * 64},
        "packages": [["ray", "2"]],
        "environment": {
            "marker": {
                "interpreter": {"source": "managed", "build": "20260814", "sha256": "a" * 64},
                "interpreter_digest": "b" * 64,
            }
        },
        **changes,
    }


def test_it_does_not_depend_on_order() -> None:
    one = fingerprint(version="3", build="b", sha256="s", packages={"a": "1", "b": "2"})
    assert one == fingerprint(version="3", build="b", sha256="s", packages={"b": "2", "a": "1"})
    assert len(one) == 64


def test_an_unpacked_interpreter_is_known_by_its_archive() -> None:
    assert actual_fingerprint(facts()) == PLANNED


def test_a_system_interpreter_is_known_by_its_binary() -> None:
    planned = fingerprint(
        version="3.12.1", build="3.12.1 (main)", sha256="b" * 64, packages={"ray": "2"}
    )
    assert actual_fingerprint(facts(environment={"marker": None})) == planned


@pytest.mark.parametrize(
    "changes",
    [
        {"packages": [["ray", "3"]]},
        {"packages": [["ray", "2"], ["extra", "1"]]},
        {"packages": []},
        {"interpreter": {"version": "3.12.2", "build": "3.12.1 (main)", "digest": "b" * 64}},
        {"interpreter": {"version": "3.12.1", "build": "3.12.1 (main)", "digest": "c" * 64}},
        {"environment": {"marker": None}},
    ],
)
def test_any_difference_changes_it(changes: dict[str, Any]) -> None:
    found = actual_fingerprint(facts(**changes))
    assert found
    assert found != PLANNED


def test_a_missing_fact_gives_none() -> None:
    incomplete = facts()
    del incomplete["packages"]
    assert actual_fingerprint(incomplete) == ""

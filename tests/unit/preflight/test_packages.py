"""Installed packages against planned ones."""

from __future__ import annotations

from saf_env.preflight.packages import differences


def test_versions_are_compared_as_versions() -> None:
    planned = {"a": "1.0", "b": "2"}
    assert not differences(planned, [["a", "1.0.0"], ["b", "2"]]).any
    wrong = differences(planned, [["a", "1.1"], ["b", "2"], ["b", "3"], ["c", "not a version"]])
    assert wrong.other == ("a 1.1 instead of 1.0", "b 2, 3 instead of 2")
    assert str(differences(planned, [])) == "missing: a 1.0, b 2"
    assert differences({"c": "1"}, [["c", "nonsense"]]).other

"""Checks of the interpreter: which build it is, and whether its files are as they were."""

from __future__ import annotations

import pytest

from saf_env.plan.fingerprint import actual_build
from tests.unit.preflight.test_checks import SHA, changed, make_facts, make_node, verdict

CASES = [
    # path of the fact, its value, level, words of the finding
    ("python_files.changed", [1, ["json/decoder.py"]], "fail", "json/decoder.py"),
    ("python_files.missing", [2, ["ast.py"]], "fail", "2 of 50 files"),
    ("python_files.foreign", [1, ["numpy.py"]], "warn", "numpy.py"),
    ("python_files.manifest_sha256", "0", "fail", "manifest"),
]


@pytest.mark.parametrize(("path", "value", "level", "words"), CASES)
def test_the_library_of_the_interpreter(path: str, value: object, level: str, words: str) -> None:
    node = make_node("head", 6380)
    found = verdict("python-intact", changed(make_facts(node), path, value), node)
    assert found.level == level
    assert words in f"{found.summary} {found.evidence}"
    assert found.hint


def test_the_library_of_another_interpreter_is_not_told_on_top() -> None:
    node = make_node("head", 6380)
    facts = changed(make_facts(node), "interpreter.digest", "0" * 64)
    facts = changed(facts, "python_files.missing", [50, ["os.py"]])
    found = verdict("python-intact", facts, node)
    assert (found.level, "python-build" in found.evidence) == ("skip", True)
    assert verdict("python-build", facts, node).level == "fail"


def test_an_archive_is_known_by_the_marker() -> None:
    node = make_node("head", 6380, "macos-arm64")
    facts = make_facts(node)
    assert actual_build(facts["facts"]) == ("20260814", SHA)
    assert verdict("python-build", facts, node).level == "ok"
    other = changed(facts, "interpreter.digest", "0" * 64)
    assert verdict("python-build", other, node).level == "fail"
    marker = facts["facts"]["environment"]["marker"]
    marker["interpreter"]["sha256"] = "1" * 64
    assert verdict("python-build", facts, node).level == "fail"


def test_the_library_of_an_archive_has_nothing_to_add_and_is_ours_to_mend() -> None:
    for platform, level, words in (
        ("macos-arm64", "fail", "run `saf-env check --fix`, which makes"),
        ("linux-x86_64", "warn", "install the system's Python again"),
    ):
        node = make_node("head", 6380, platform)
        facts = changed(make_facts(node), "python_files.foreign", [1, ["numpy.py"]])
        found = verdict("python-intact", facts, node)
        assert (found.level, found.hint.startswith(words)) == (level, True)
    del facts["facts"]["python_files"]
    assert verdict("python-intact", facts, node).level == "fail"

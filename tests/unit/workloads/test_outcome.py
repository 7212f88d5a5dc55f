"""The report and its JSON: there and back, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saf_env
from saf_env.errors import UsageError
from saf_env.harness.live import Node
from saf_env.workloads.outcome import SCHEMA, Outcome, Report

SCHEMA_FILE = Path(saf_env.__file__).parent / "schemas" / "report.json"
HEAD = Node("head", "here", "native", "head", "linux-x86_64", ("mlx",), 1, "f00d", "abc")
RIGHT = Outcome(
    workload="pi",
    node="head",
    verdict="right",
    seconds=2.5,
    figure=345.0,
    unit="Msamples/s",
    limit=350.0,
    share=345 / 350,
    stages={"place": 0.5, "run": 2.0},
    details={"samples": 1000, "rates": [1.0, 2.0]},
)
WRONG = Outcome("matmul", "head", "wrong", 1.0, message="stage verify: not exact")
REPORT = Report(
    run="20260801-121314-000000",
    cluster="local",
    started="2026-08-01T12:13:14+00:00",
    seconds=3.5,
    verdict="failed",
    nodes=(HEAD.to_json(),),
    outcomes=(RIGHT, WRONG),
    environment={"python": "3.13.7"},
)


def on_disk(report: Report) -> Any:
    return json.loads(json.dumps(report.to_json()))


def valid(value: Any) -> bool:
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def test_there_and_back() -> None:
    value = on_disk(REPORT)
    assert on_disk(Report.from_json(value, "it")) == value


def test_the_schema_fits() -> None:
    assert valid(on_disk(REPORT))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("verdict",), "fine"),
        (("started",), "yesterday"),
        (("outcomes", 0, "verdict"), "slow"),
        (("outcomes", 0, "figure"), 0),
        (("outcomes", 0, "message"), "right, but"),
        (("outcomes", 1, "message"), ""),
        (("nodes", 0, "kind"), "virtual"),
    ],
)
def test_the_schema_refuses(path: tuple[Any, ...], value: object) -> None:
    report = on_disk(REPORT)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not valid(report)


def test_a_newer_schema_is_refused_clearly() -> None:
    with pytest.raises(UsageError, match=f"schema {SCHEMA + 1}; this saf-env reads up to {SCHEMA}"):
        Report.from_json({**on_disk(REPORT), "schema": SCHEMA + 1}, "report.json")


def test_what_a_later_writer_adds_is_passed_over() -> None:
    value = on_disk(REPORT)
    value["mood"] = value["outcomes"][0]["mood"] = "good"
    assert Report.from_json(value, "it").outcomes[0].figure == 345.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(JSON)
def test_anything_else_is_damaged(value: Any) -> None:
    with pytest.raises(UsageError, match=r"is not a report|has schema"):
        Report.from_json(value, "it")


@given(st.sampled_from(sorted(REPORT.to_json())), JSON)
def test_one_bad_entry_never_crashes(key: str, value: Any) -> None:
    with suppress(UsageError):
        Report.from_json({**on_disk(REPORT), key: value}, "it")


@given(st.sampled_from(sorted(on_disk(REPORT)["outcomes"][0])), JSON)
def test_one_bad_entry_of_an_outcome_never_crashes(key: str, value: Any) -> None:
    report = on_disk(REPORT)
    report["outcomes"][0][key] = value
    with suppress(UsageError):
        Report.from_json(report, "it")

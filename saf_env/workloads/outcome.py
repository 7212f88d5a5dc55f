"""What a run of the suite gives, as frozen values, and their versioned JSON.

The format is ``saf_env/schemas/report.json``; a change that an older reader would misread raises
``SCHEMA``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from saf_env.errors import UsageError

SCHEMA = 1
Answer = Literal["right", "wrong", "error"]


@dataclass(frozen=True)
class Outcome:
    """One workload on one node.

    Attributes:
        workload: name of the workload.
        node: name of the node; empty when it is not tied to one.
        verdict: ``right`` or ``wrong`` answer; ``error`` when there is none.
        figure: its figure of merit in ``unit``; None when nothing was measured. Never part of the
            verdict.
        unit: unit of ``figure`` and ``limit``.
        higher_is_better: which way the figure improves.
        limit: the node's own limit at that moment, measured by the same kernel in plain processes.
        share: ``figure / limit`` (its inverse where lower is better).
        seconds: wall time of all of it.
        stages: wall time in seconds by stage: place, run, verify, measure.
        details: further facts, JSON values.
        message: why it is wrong or an error; empty when right.
    """

    workload: str
    node: str
    verdict: Answer
    seconds: float
    figure: float | None = None
    unit: str = ""
    higher_is_better: bool = True
    limit: float | None = None
    share: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Report:
    """One run of the suite.

    Attributes:
        run: id of the run, the name of its folder.
        cluster: name of the cluster.
        started: UTC, ISO 8601.
        seconds: wall time.
        verdict: ``ok`` when the run came to its end and every outcome is right.
        nodes: the nodes, as in the live file.
        findings: what the checks found, as ``saf-env check --json`` writes them.
        outcomes: in the order they ended.
        environment: versions of what the driver ran on.
    """

    run: str
    cluster: str
    started: str
    seconds: float
    verdict: Literal["ok", "failed"]
    nodes: tuple[Mapping[str, Any], ...]
    outcomes: tuple[Outcome, ...]
    environment: Mapping[str, str]
    findings: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: lists and dicts, as one read from its file."""
        value: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))
        return value

    @classmethod
    def from_json(cls, value: Any, where: str) -> Report:
        """The report that ``value`` holds.

        Args:
            value: JSON values.
            where: the file it came from, for messages.

        Raises:
            UsageError: it is no report, or one of a newer schema.
        """
        damaged = UsageError(f"{where} is not a report of saf-env, or it is damaged")
        if not isinstance(value, dict) or type(value.get("schema")) is not int:
            raise damaged
        if value["schema"] > SCHEMA:
            raise UsageError(
                f"{where} has schema {value['schema']}; this saf-env reads up to {SCHEMA}",
                hint="Read it with the saf-env that wrote it, or a later one.",
            )
        try:
            outcomes = tuple(Outcome(**_known(Outcome, o)) for o in value["outcomes"])
            rest = {k: v for k, v in _known(cls, value).items() if k != "outcomes"}
            report = cls(outcomes=outcomes, **rest)
        except (KeyError, TypeError, AttributeError):
            raise damaged from None
        _check_types(report, damaged)
        return report


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``value`` that ``kind`` has; a later writer of this schema may add others."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in value.items() if k in names}


def _check_types(report: Report, damaged: UsageError) -> None:
    """Enough of the schema that whatever draws a report need not look again."""
    sound = isinstance(report.seconds, (int, float)) and report.verdict in ("ok", "failed")
    sound = sound and all(isinstance(t, str) for t in (report.run, report.cluster, report.started))
    sound = sound and all(_sound(o) for o in report.outcomes)
    if not sound:
        raise damaged


def _sound(o: Outcome) -> bool:
    texts = (o.workload, o.node, o.unit, o.message)
    numbers = (o.figure, o.limit, o.share)
    return (
        all(isinstance(t, str) for t in texts)
        and all(n is None or isinstance(n, (int, float)) for n in numbers)
        and isinstance(o.seconds, (int, float))
        and o.verdict in ("right", "wrong", "error")
    )

"""The report of a run, read from its file. The values are the workloads' own."""

from __future__ import annotations

import json
from pathlib import Path

from saf_env.errors import UsageError
from saf_env.workloads.outcome import SCHEMA, Answer, Outcome, Report

__all__ = ["SCHEMA", "Answer", "Outcome", "Report", "read"]

LARGEST = 50_000_000  # bytes; a report of a hundred nodes is far below


def read(path: Path) -> Report:
    """Read ``report.json``.

    Raises:
        UsageError: it cannot be read, is no report, or is one of a newer schema.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path} is too large to be a report")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="`saf-env test` makes a report."
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not a report of saf-env, or it is damaged") from None
    return Report.from_json(value, str(path))

"""Python files of ours, run by a Python where a node is: their text goes in by standard input.

So nothing of saf-env has to be installed on a host or in an image before it can be looked at, and
what runs there is always this version's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# The first line is the file as a JSON string, the rest is for the file itself to read.
_BOOT = "import json, sys; exec(compile(json.loads(sys.stdin.readline()), sys.argv[1], 'exec'))"

ALONE = ("-I", "-S")
"""No variable, no user folder and no .pth file has a say; and Python starts in half the time."""


def script(
    python: Path | str,
    source: Path,
    request: Mapping[str, Any],
    options: Sequence[str] = ALONE,
) -> tuple[list[str], str]:
    """Command and standard input by which ``source`` answers ``request``.

    Args:
        python: the interpreter, as the host names it.
        source: a file of saf-env that reads JSON from standard input and imports nothing of it.
        request: what it reads.
        options: of the interpreter.
    """
    argv = [str(python), *options, "-c", _BOOT, f"saf-env/{source.name}"]
    return argv, f"{_text(source)}\n{json.dumps(request)}"


@cache
def _text(source: Path) -> str:
    # Plain ASCII: whatever the host's locale is, it is read as it was written.
    return json.dumps(source.read_text(encoding="utf-8"))

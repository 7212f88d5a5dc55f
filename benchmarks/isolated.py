"""Runs commands in a process namespace of their own and tells how long each took.

``ray stop`` ends every Ray of the machine that it can see; here it sees only what was started here.
Linux only. ``python -m benchmarks.isolated`` is the first process of the namespace: a JSON list of
``{"name", "argv", "env"}`` on standard input, JSON on standard output. When it ends, all ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import SECONDS, CommandFailedError, timed

ROOT = Path(__file__).parents[1]
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def unshare() -> list[str] | None:
    """The command that opens a process namespace, or None where there can be none."""
    for command in ([*_UNSHARE], [*_UNSHARE, "--user", "--map-root-user"]):
        if (
            shutil.which("unshare")
            and not subprocess.run(
                [*command, "true"], capture_output=True, timeout=20, check=False
            ).returncode
        ):
            return command
    return None


def timed_in(
    namespace: Sequence[str], commands: Sequence[Mapping[str, Any]], cwd: Path
) -> dict[str, float]:
    """Run ``commands`` one after the other in a namespace; seconds by name.

    Args:
        namespace: from :func:`unshare`.
        commands: each with ``name``, ``argv`` and ``env`` (the whole environment).
        cwd: the folder that they run in.

    Raises:
        CommandFailedError: one of them failed.
    """
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "benchmarks.isolated"],
        input=json.dumps({"cwd": str(cwd), "commands": list(commands)}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise CommandFailedError(answer["error"])
    return dict(answer["seconds"])


def main() -> None:
    """Run the commands in a child; this process is the namespace's init and only buries the dead.

    Without that, ``ray stop`` would wait for processes that have long ended.
    """
    child = os.fork()
    if child:
        while os.wait()[0] != child:
            pass
        return
    request = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        seconds = {
            command["name"]: timed(command["argv"], env=command["env"], cwd=Path(request["cwd"]))
            for command in request["commands"]
        }
        answer = {"seconds": seconds}
    except (CommandFailedError, OSError, subprocess.TimeoutExpired) as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

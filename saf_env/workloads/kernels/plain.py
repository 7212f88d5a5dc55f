"""The plainest program: a kernel in bare processes of a node's interpreter, without Ray."""

import json
import os
import subprocess
import sys
from typing import Any

# Reads one request, loads the kernel, says that it is ready, waits for the word, runs, answers.
# The alarm ends the process whatever becomes of its parent.
CHILD = """
import json, signal, sys, time
request = json.loads(sys.stdin.readline())
signal.alarm(request["seconds"])
space = {"__name__": "kernel"}
exec(compile(request["source"], "kernel", "exec"), space)
print("ready", flush=True)
sys.stdin.readline()
started = time.monotonic()
result = space[request["function"]](**request["arguments"])
print(json.dumps({"started": started, "ended": time.monotonic(), "result": result}), flush=True)
"""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def environment() -> dict[str, str]:
    """The node's environment less Ray's variables, one thread a process as Ray gives a task."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, **dict.fromkeys(_THREADS, "1")}


def run_together(
    source: str, function: str, arguments: list[dict[str, Any]], seconds: int
) -> dict[str, Any]:
    """Run ``function`` of ``source`` once per entry of ``arguments``, all at the same time.

    Args:
        source: text of a kernel module.
        function: name of a function in it that returns JSON values.
        arguments: keyword arguments of each process.
        seconds: each process ends itself after this time.

    Returns:
        ``seconds``: wall time from the first start to the last end, loading left out;
        ``results``: what the function returned, in order.

    Raises:
        RuntimeError: a process ended without a result; the message holds its last words.
    """
    argv = [sys.executable, "-I", "-c", CHILD]
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment())
        for _ in arguments
    ]
    try:
        for child, keywords in zip(children, arguments, strict=True):
            request = {"source": source, "function": function, "arguments": keywords}
            _say(child, json.dumps({**request, "seconds": seconds}))
        for child in children:
            _answer(child)
        for child in children:
            _say(child, "go")
        answers = [json.loads(_answer(child)) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    wall = max(a["ended"] for a in answers) - min(a["started"] for a in answers)
    return {"seconds": wall, "results": [a["result"] for a in answers]}


def _say(child: "subprocess.Popen[str]", line: str) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(line + "\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended; reading its answer says why


def _answer(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        _, words = child.communicate()
        last = words.strip().splitlines()[-1:] or ["it printed nothing"]
        raise RuntimeError(f"a plain process ended with {child.returncode}: {last[0]}")
    return line

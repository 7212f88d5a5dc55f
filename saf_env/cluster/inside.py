"""Asks a running cluster. One file: the standard library and Ray, run in the head's environment.

A JSON request on standard input, a JSON answer on standard output. The controller's own Python has
no Ray, and must not: only the locked one may talk to the cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any

_TABLE = b"saf-env"
"""Namespace in the GCS's table of keys: what each start said of itself when it was attested."""


def nodes(address: str, timeout: float, *, told: bool = False) -> list[dict[str, Any]]:
    """The nodes that the GCS at ``address`` knows.

    Args:
        address: of the GCS.
        timeout: seconds.
        told: whether to get, too, what living nodes said of themselves when they were attested.

    Returns:
        For each: ``id``, ``name`` and ``run`` (from our labels, empty for a node that is not ours),
        ``alive``, ``address``, ``port`` of its node manager, total ``resources``, and ``told``: the
        probe's answer, or None.
    """
    from ray._raylet import GcsClient

    client = GcsClient(address=address)
    infos = client.get_all_node_info(timeout=timeout)
    runs = {dict(i.labels).get("saf-run", "") for i in infos.values() if i.state == 0} - {""}
    said: dict[bytes, bytes] = {}
    if told and runs:
        keys = [run.encode() for run in sorted(runs)]
        said = client.internal_kv_multi_get(keys, namespace=_TABLE, timeout=timeout)
    return [
        {
            "id": node_id.hex(),
            "name": dict(info.labels).get("saf-node", ""),
            "run": dict(info.labels).get("saf-run", ""),
            "alive": info.state == 0,
            "address": info.node_manager_address,
            "port": info.node_manager_port,
            "resources": dict(info.resources_total),
            "told": _told(said.get(dict(info.labels).get("saf-run", "").encode())),
        }
        for node_id, info in infos.items()
    ]


def _told(value: bytes | None) -> Any:
    """What a start said of itself; None for what no ``attest`` has written."""
    try:
        return json.loads(value) if value else None
    except ValueError:
        return None


def wait_for(address: str, wanted: dict[str, str], seconds: float) -> list[dict[str, Any]]:
    """Ask until the GCS says that the starts ``wanted`` (name by run) are alive.

    Raises:
        TimeoutError: they were not after ``seconds``.
    """
    from ray.exceptions import RaySystemError, RpcError

    deadline, caller = time.monotonic() + seconds, os.getppid()
    while True:
        try:
            found, reason = nodes(address, timeout=2.0), ""
        except (RpcError, RaySystemError, RuntimeError) as error:  # the GCS is not up yet
            found, reason = [], str(error)
        missing = wanted.keys() - {node["run"] for node in found if node["alive"]}
        if not missing:
            return found
        if os.getppid() != caller:
            sys.exit("the caller is gone")
        if time.monotonic() > deadline:
            names = ", ".join(sorted(wanted[run] for run in missing))
            raise TimeoutError(f"not alive after {seconds:.0f} s: {names}. {reason}".strip())
        time.sleep(0.03)


def attest(request: dict[str, Any]) -> dict[str, Any]:
    """Wait until the nodes of a request are alive and run the probe in a Ray worker on each.

    What each said is kept in the GCS, so that any host of the cluster can judge it.

    Returns:
        ``nodes`` as of :func:`nodes`, when all is done; ``facts`` by node name. A node whose worker
        fails, or does not answer in time, has ``{"error": reason}`` for facts.
    """
    import ray
    from ray.exceptions import RaySystemError, RpcError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    address, via = request["address"], request["via"]
    wait_for(address, {via["run"]: via["name"]}, request["seconds"])
    os.chdir("/")  # Ray puts the driver's working directory on the path of its workers
    ray.init(
        address=address,
        _node_ip_address=request["node_ip"],
        namespace="saf-env",
        log_to_driver=False,
        logging_level="ERROR",
    )

    def probe(source: str, wanted: dict[str, Any]) -> Any:
        namespace: dict[str, Any] = {"__name__": "saf_env_probe"}
        exec(compile(source, "probe.py", "exec"), namespace)
        return namespace["gather"](wanted)

    task = ray.remote(num_cpus=0, max_retries=0)(probe)
    found = wait_for(address, request["runs"], request["seconds"])
    pending = {}
    for node in found:
        if node["alive"] and node["run"] in request["runs"]:
            here = NodeAffinitySchedulingStrategy(node["id"], soft=False)
            pending[node["name"]] = task.options(scheduling_strategy=here).remote(
                request["probe"], request["probe_request"]
            )
    ray.wait(list(pending.values()), num_returns=len(pending), timeout=request["seconds"])
    facts = {}
    for name, reference in pending.items():
        try:
            facts[name] = ray.get(reference, timeout=0.1)
        except Exception as error:  # whatever it is, it is this node's answer
            facts[name] = {"error": f"{type(error).__name__}: {error}"}
    ray.shutdown()
    _note(address, {run: facts[name] for run, name in request["runs"].items() if name in facts})
    with contextlib.suppress(RpcError, RaySystemError, RuntimeError):  # it was there a moment ago
        found = nodes(address, timeout=5.0, told=True)
    return {"nodes": found, "facts": facts}


def _note(address: str, said: dict[str, Any]) -> None:
    """Keep what starts said of themselves, by run, in the GCS; without it only the asker knows."""
    from ray._raylet import GcsClient
    from ray.exceptions import RaySystemError, RpcError

    client = GcsClient(address=address)
    with contextlib.suppress(RpcError, RaySystemError, RuntimeError):
        for run, answer in said.items():
            value = json.dumps(answer).encode()
            client.internal_kv_put(run.encode(), value, True, namespace=_TABLE, timeout=5.0)


def drain(address: str, ids: list[str], reason: str) -> None:
    """Ask the GCS to give the nodes ``ids`` no more work."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    client = GcsClient(address=address)
    preemption = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    for node_id in ids:
        client.drain_node(node_id, preemption, reason, 0)


def _unreachable(error: Exception) -> bool:
    """Whether Ray says that there is no GCS, or that it is silent; anything else proves nothing."""
    from ray.exceptions import GetTimeoutError, RaySystemError, RpcError

    # A GCS client that cannot connect at all raises a plain RuntimeError.
    silent = (GetTimeoutError, RaySystemError, RpcError, TimeoutError)
    return isinstance(error, silent) or type(error) is RuntimeError


def main() -> None:
    """Answer one request: ``nodes``, ``attest`` (which waits first) or ``drain``."""
    request = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        if request["op"] == "nodes":
            answer = {"nodes": nodes(request["address"], request["seconds"], told=True)}
        elif request["op"] == "drain":
            drain(request["address"], request["ids"], request["reason"])
            answer = {}
        else:
            answer = attest(request)
    except Exception as error:  # the reader is a program: every failure is an answer
        answer = {"error": f"{type(error).__name__}: {error}", "unreachable": _unreachable(error)}
    sys.stdout.write("\n" + json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # what Ray and Python clean up at an exit takes a tenth of a second


if __name__ == "__main__":
    main()

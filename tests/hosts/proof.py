"""What users do with Ray, done on a mixed cluster: run by a driver, natively or in a container.

``python proof.py ADDRESS NODE_IP`` prints one line of JSON: by name of each function below that
takes the nodes, ``ok`` or what went wrong.
"""

# mypy: ignore-errors
# Ray is not where the project is checked.

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

SECONDS = 90.0
BIG = 200_000_000  # bytes


class Node:
    """One living node: ``name``, ``kind`` and Ray's id, as its labels have them."""

    def __init__(self, seen: dict[str, Any]) -> None:
        self.name = seen["Labels"]["saf-node"]
        self.kind = seen["Labels"]["saf-kind"]
        self.id = seen["NodeID"]

    @property
    def here(self) -> NodeAffinitySchedulingStrategy:
        """Work with this strategy runs on this node or not at all."""
        return NodeAffinitySchedulingStrategy(self.id, soft=False)


@ray.remote(num_cpus=0)
def where() -> str:
    """The id of the node that this runs on."""
    return ray.get_runtime_context().get_node_id()


def tasks(nodes: list[Node]) -> None:
    """A task runs on the node that it is sent to."""
    found = ray.get([where.options(scheduling_strategy=n.here).remote() for n in nodes])
    assert found == [n.id for n in nodes]


def actors(nodes: list[Node]) -> None:
    """An actor keeps its state, and is called from a task on every other node."""

    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    @ray.remote(num_cpus=0)
    def call(counter: Any) -> int:
        return ray.get(counter.add.remote())

    for home in nodes:
        counter = Counter.options(scheduling_strategy=home.here).remote()
        called = [ray.get(call.options(scheduling_strategy=n.here).remote(counter)) for n in nodes]
        assert called == list(range(1, len(nodes) + 1))
        ray.kill(counter)


def nested(nodes: list[Node]) -> None:
    """A task on each node starts a task on each other one."""

    @ray.remote(num_cpus=0)
    def outer(ids: list[str]) -> list[str]:
        there = [NodeAffinitySchedulingStrategy(i, soft=False) for i in ids]
        return ray.get([where.options(scheduling_strategy=s).remote() for s in there])

    ids = [n.id for n in nodes]
    for node in nodes:
        assert ray.get(outer.options(scheduling_strategy=node.here).remote(ids)) == ids


def env_vars(nodes: list[Node]) -> None:
    """``runtime_env`` sets variables on every node."""

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {"SAF_PROOF": "set"}})
    def variable() -> str | None:
        return os.environ.get("SAF_PROOF")

    seen = [variable.options(scheduling_strategy=n.here).remote() for n in nodes]
    assert ray.get(seen) == ["set"] * len(nodes)


def working_dir(nodes: list[Node]) -> None:
    """The driver's ``runtime_env`` has brought a folder of it to every node."""

    @ray.remote(num_cpus=0)
    def imported() -> int:
        import proof_module

        return int(proof_module.ANSWER)

    seen = [imported.options(scheduling_strategy=n.here).remote() for n in nodes]
    assert ray.get(seen) == [42] * len(nodes)


def objects(nodes: list[Node]) -> None:
    """200 MB go from every node to every other one, and arrive as they were."""

    @ray.remote(num_cpus=0)
    def make(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 255, BIG, dtype=np.uint8)

    @ray.remote(num_cpus=0)
    def total(array: np.ndarray) -> int:
        return int(array.sum(dtype=np.int64))

    for seed, source in enumerate(nodes):
        array = make.options(scheduling_strategy=source.here).remote(seed)
        sums = [total.options(scheduling_strategy=n.here).remote(array) for n in nodes]
        assert len(set(ray.get(sums))) == 1
        del array


def driver_objects(nodes: list[Node]) -> None:
    """What the driver puts is read everywhere; what tasks return the driver reads."""

    @ray.remote(num_cpus=0)
    def same(array: np.ndarray) -> np.ndarray:
        return array

    put = np.arange(BIG // 8, dtype=np.int64)
    reference = ray.put(put)
    for node in nodes:
        back = ray.get(same.options(scheduling_strategy=node.here).remote(reference))
        assert np.array_equal(back, put)


def generators(nodes: list[Node]) -> None:
    """A task's results are read while it goes on."""

    @ray.remote(num_cpus=0, num_returns="streaming")
    def count(last: int) -> Any:
        number = 0
        while number < last:  # no `yield from`: Ray takes real generators only
            yield number
            number += 1

    for node in nodes:
        stream = count.options(scheduling_strategy=node.here).remote(20)
        assert [ray.get(one) for one in stream] == list(range(20))


def retries(nodes: list[Node]) -> None:
    """A task whose worker dies is run again."""

    @ray.remote(num_cpus=0)
    class Tries:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    @ray.remote(num_cpus=0, max_retries=3)
    def flaky(tries: Any) -> int:
        attempt = ray.get(tries.add.remote())
        if attempt < 3:
            os._exit(1)
        return int(attempt)

    for node in nodes:
        tries = Tries.options(scheduling_strategy=nodes[0].here).remote()
        assert ray.get(flaky.options(scheduling_strategy=node.here).remote(tries)) == 3


def placement(nodes: list[Node]) -> None:
    """A placement group spans all nodes, whatever their kind."""
    bundles = [{"CPU": 1, f"saf_node_{n.name}": 0.1} for n in nodes]
    group = placement_group(bundles, strategy="STRICT_SPREAD")
    ray.get(group.ready(), timeout=SECONDS)
    on = [PlacementGroupSchedulingStrategy(group, i) for i in range(len(nodes))]
    found = ray.get([where.options(num_cpus=1, scheduling_strategy=s).remote() for s in on])
    remove_placement_group(group)
    assert found == [n.id for n in nodes]


def data(nodes: list[Node]) -> None:
    """A Ray Data pipeline runs on nodes of both kinds."""
    import ray.data

    def worked(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.05)  # so that one node does not take all before the others have begun
        there = ray.get_runtime_context().get_node_id()
        return {"value": batch["id"] * 2, "node": np.array([there] * len(batch["id"]))}

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.range(2000, override_num_blocks=40).map_batches(worked).take_all()
    assert sum(int(row["value"]) for row in rows) == 2 * sum(range(2000))
    kinds = {n.kind for n in nodes if n.id in {row["node"] for row in rows}}
    assert kinds == {n.kind for n in nodes}


PROOFS = (
    tasks,
    actors,
    nested,
    env_vars,
    working_dir,
    objects,
    driver_objects,
    generators,
    retries,
    placement,
    data,
)


def main(address: str, node_ip: str) -> None:
    """Run every proof and say how it went."""
    os.chdir("/")  # Ray puts the driver's working folder on the path of its workers
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "proof_module.py").write_text("ANSWER = 42\n", encoding="utf-8")
        ray.init(
            address,
            _node_ip_address=node_ip,
            runtime_env={"working_dir": folder},
            log_to_driver=False,
            logging_level="ERROR",
        )
    nodes = [Node(seen) for seen in ray.nodes() if seen["Alive"]]
    said = {}
    for proof in PROOFS:
        began = time.monotonic()
        try:
            proof(sorted(nodes, key=lambda n: n.name))
            said[proof.__name__] = "ok"
        except Exception:  # the reader wants to know of all of them
            said[proof.__name__] = traceback.format_exc(limit=-3)
        sys.stderr.write(f"{proof.__name__} {time.monotonic() - began:.1f} s\n")
    sys.stdout.write("\n" + json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The pytest plugin: ``pytest -p saf_env.harness.plugin --saf-live FILE``.

Fixtures: ``cluster`` (the live cluster), ``nodes`` (all of its nodes), ``node`` (the test runs
once for every node), ``on`` (``on(node)`` places work there), ``trial`` (stages, judgement,
figure). Markers: ``saf_nodes(kind=, platform=, role=, host=, group=)`` chooses the nodes that
``node`` stands for; ``saf_timeout(seconds)`` limits a test.

Functions of a test's module travel to the nodes by value: they may use what the nodes have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saf_env.errors import UsageError
from saf_env.harness.cluster import Cluster, wanted
from saf_env.harness.live import Live, Node, load
from saf_env.harness.recorder import TRIAL, Recorder, names
from saf_env.harness.selection import Candidate, choose
from saf_env.workloads.placement import Placement, by_value
from saf_env.workloads.trial import DEFAULT_TIMEOUT, Trial

LIVE = pytest.StashKey[Live]()
MARKERS = (
    "saf_nodes(kind, platform, role, host, group): the nodes that the fixture `node` stands for",
    "saf_timeout(seconds): how long the test may take",
    "saf_nowhere: set by the plugin on a test that no node of the cluster fits",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    group = parser.getgroup("saf-env", "a live cluster of saf-env")
    group.addoption("--saf-live", type=Path, metavar="FILE", help="the live file of the cluster")
    group.addoption("--saf-run-dir", type=Path, metavar="DIR", help="write report.json there")
    group.addoption("--saf-quick", action="store_true", help="small sizes")
    group.addoption(
        "--saf-select",
        action="append",
        default=[],
        metavar="WORD",
        help="only this node, workload or test id; may be given again",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the live file and watch the run."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    path, folder = config.getoption("--saf-live"), config.getoption("--saf-run-dir")
    if path is None:
        return
    try:
        config.stash[LIVE] = load(path)
    except UsageError as error:
        raise pytest.UsageError(f"{error.message}. {error.hint}") from None
    if folder is not None:
        recorder = Recorder(config.stash[LIVE], folder.absolute(), config)
        config.pluginmanager.register(recorder, "saf-env-recorder")


def _live(config: pytest.Config) -> Live:
    if LIVE not in config.stash:
        raise pytest.UsageError("tests on nodes need a live cluster: --saf-live FILE")
    return config.stash[LIVE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``node`` once for every node that its marker allows."""
    if "node" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("saf_nodes")
    try:
        found = wanted(_live(metafunc.config).nodes, dict(marker.kwargs) if marker else {})
    except ValueError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
    if found:
        metafunc.parametrize("node", found, ids=[n.name for n in found], indirect=True)
    else:  # an empty list would become a skipped test
        nowhere = pytest.param(None, id="no-node", marks=pytest.mark.saf_nowhere)
        metafunc.parametrize("node", [nowhere], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that no node fits, and those that are not selected."""
    somewhere = [i for i in items if not i.get_closest_marker("saf_nowhere")]
    words = config.getoption("--saf-select")
    chosen = [True] * len(somewhere)
    if words:
        known = [node.name for node in _live(config).nodes]
        try:
            chosen = choose(words, [Candidate(i.name, *names(i)) for i in somewhere], known)
        except UsageError as error:
            raise pytest.UsageError(error.message) from None
    kept = [item for item, keep in zip(somewhere, chosen, strict=True) if keep]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The live cluster, with this process connected to it as a driver."""
    live = Cluster(_live(pytestconfig))
    live.connect()
    yield live
    live.close()


@pytest.fixture(scope="session")
def nodes(cluster: Cluster) -> tuple[Node, ...]:
    """All nodes of the cluster, head first."""
    return cluster.nodes


@pytest.fixture
def node(request: pytest.FixtureRequest, cluster: Cluster) -> Node:
    """The node that this run of the test is for; the test fails when the cluster has lost it."""
    chosen: Node = request.param
    cluster.node_id(chosen.name)
    return chosen


@pytest.fixture
def trial(request: pytest.FixtureRequest, cluster: Cluster) -> Trial:
    """What the test reports its stages, its judgement and its figure to; its clock starts here."""
    marker = request.node.get_closest_marker("saf_timeout")
    made = Trial(
        *names(request.node),
        timeout=float(marker.args[0]) if marker else DEFAULT_TIMEOUT,
        quick=bool(request.config.getoption("--saf-quick")),
    )
    request.node.stash[TRIAL] = made
    return made


@pytest.fixture
def on(
    request: pytest.FixtureRequest, cluster: Cluster, trial: Trial
) -> Callable[[Node], Placement]:
    """``on(node)``: work placed on a node, within the time of the trial."""
    by_value(request.module)
    return lambda node: Placement(node.name, cluster.cpus(node.name), cluster, trial)

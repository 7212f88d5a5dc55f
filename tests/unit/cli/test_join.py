"""Commands on a host that the cluster is not run from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from saf_env.cli.commands import down, join, up
from saf_env.cli.context import Context
from saf_env.cluster.same_plan import plan_digest
from saf_env.errors import LockError, UsageError
from saf_env.lock.model import Lock
from saf_env.plan.build import build
from saf_env.spec.model import ClusterSpec


def several(spec: ClusterSpec, *, ssh: str | None = None) -> ClusterSpec:
    """The head on alpha, which is reached by ``ssh``; the other node, a native one, on beta."""
    alpha = replace(spec.hosts["here"], name="alpha", address="100.64.0.1", ssh=ssh)
    beta = replace(alpha, name="beta", address="100.64.0.2", ssh="beta")
    nodes = tuple(
        replace(n, host="alpha") if n.role == "head" else replace(n, host="beta", kind="native")
        for n in spec.nodes
    )
    return replace(spec, hosts={"alpha": alpha, "beta": beta}, nodes=nodes)


@pytest.fixture
def on_beta(
    spec: ClusterSpec, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Context:
    """A call on beta, in a clone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = Context(tmp_path / "clone", tmp_path / "clone" / "cluster.toml")
    made.home.mkdir()
    vars(made).update(spec=several(spec), lock=lock, here="beta")
    return made


def arguments(**given: object) -> argparse.Namespace:
    usual = {"nodes": [], "all": False, "purge": False, "ignore": [], "partial": False}
    return argparse.Namespace(**{**usual, "json": False, **given})


def test_everything_of_it_lies_where_the_controller_would_put_it(on_beta: Context) -> None:
    home = Path.home() / ".saf-env" / "local"
    assert on_beta.place == home
    assert on_beta.plan.home == home
    assert on_beta.plan.node("linux").environment.path.is_relative_to(home)
    assert on_beta.hosts().unasked == {"alpha"}
    assert [node.name for node in on_beta.own_nodes()] == ["linux"]
    assert [node.name for node in on_beta.nodes([])] == ["linux"]


def test_a_start_is_the_same_from_both_sides(
    on_beta: Context, spec: ClusterSpec, lock: Lock
) -> None:
    there = build(several(spec), lock, Path("/srv/project"), here="alpha")
    here = on_beta.plan
    digests = [[plan_digest(n, plan.address) for n in plan.nodes] for plan in (here, there)]
    assert digests[0] == digests[1]
    assert here.folder == there.folder


def test_ray_is_asked_from_a_node_of_this_machine(on_beta: Context) -> None:
    assert on_beta.gcs.via.name == "linux"


def test_where_all_hosts_have_ssh_any_machine_runs_the_cluster(
    on_beta: Context, spec: ClusterSpec
) -> None:
    vars(on_beta).update(spec=several(spec, ssh="alpha"))
    assert on_beta.controls
    assert on_beta.place == on_beta.home
    assert on_beta.hosts().unasked == set()


def test_up_is_refused_with_what_to_do(on_beta: Context) -> None:
    with pytest.raises(UsageError, match="this machine is beta, and cluster local is run") as told:
        up.run(on_beta, arguments())
    assert "saf-env join NODE" in told.value.hint


@pytest.mark.parametrize(
    ("node", "words"),
    [("head", "head is a node of alpha, and this machine is beta"), ("lin", 'no node "lin"')],
)
def test_what_is_not_of_this_machine_is_not_joined(on_beta: Context, node: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        join.run(on_beta, arguments(node=node))


def test_a_lock_made_here_would_be_another(on_beta: Context) -> None:
    with pytest.raises(LockError, match="one made here would be another") as told:
        join.run(on_beta, arguments(node="linux"))
    assert "bring lockfiles/local from alpha" in told.value.hint


@pytest.mark.parametrize("given", [{"nodes": ["head"]}, {"purge": True}])
def test_what_only_the_controller_does_is_refused(
    on_beta: Context, given: dict[str, object]
) -> None:
    with pytest.raises(UsageError) as told:
        down.run(on_beta, arguments(**given))
    assert "alpha" in told.value.hint

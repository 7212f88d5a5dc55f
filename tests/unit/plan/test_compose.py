"""What Docker Compose is told of nodes in a tailnet, and of all others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saf_env.lock.model import Lock
from saf_env.plan.build import NO_ENGINE, build
from saf_env.plan.compose import (
    LABEL_CLUSTER,
    LABEL_NODE,
    LABEL_SIDECAR,
    Handed,
    rendered,
    services_of,
)
from saf_env.plan.model import ClusterPlan
from saf_env.plan.names import extra_hosts, host_names
from saf_env.spec.model import ClusterSpec, TailscaleSpec

HOME = Path("/a $HOME ${b}")
IMAGE = "tailscale/tailscale@sha256:" + "1" * 64
HANDED = Handed("1000:1000", HOME / "token", HOME / "secrets" / "key")


def planned(spec: ClusterSpec, lock: Lock, **changes: Any) -> ClusterPlan:
    """The plan of the small cluster with ``changes`` of its container node."""
    linux = replace(lock.toolchains["linux"], base_image="debian@sha256:" + "d" * 64)
    nodes = tuple(replace(n, **changes) if n.name == "linux" else n for n in spec.nodes)
    in_a_tailnet = replace(
        spec,
        nodes=nodes,
        tailscale=TailscaleSpec(IMAGE, "secrets/key"),
        hosts={"here": replace(spec.hosts["here"], address="100.64.0.1")},
    )
    locked = replace(lock, toolchains={**lock.toolchains, "linux": linux})
    return build(in_a_tailnet, locked, HOME)


@pytest.fixture
def tailnet(spec: ClusterSpec, lock: Lock) -> ClusterPlan:
    return planned(spec, lock, network="tailscale", address="100.64.0.9")


def compose(plan: ClusterPlan) -> dict[str, Any]:
    runs = {node.name: "word" for node in plan.containers}
    value: dict[str, Any] = json.loads(rendered(plan, plan.containers, runs, HANDED))
    return value


def test_a_node_in_a_tailnet_advertises_its_address_there(tailnet: ClusterPlan) -> None:
    linux = tailnet.node("linux")
    assert (linux.network, linux.advertise) == ("tailscale", "100.64.0.9")
    assert linux.address == "100.64.0.1"
    assert tailnet.head.advertise == "100.64.0.1"
    assert host_names(tailnet) == {}


def test_a_container_is_told_what_it_has_to_be(tailnet: ClusterPlan) -> None:
    variables = compose(tailnet)["services"]["linux"]["environment"]
    assert variables["SAF_ENV_FINGERPRINT"] == tailnet.node("linux").fingerprint


def test_it_runs_in_the_namespace_of_its_sidecar(tailnet: ClusterPlan) -> None:
    found = compose(tailnet)
    assert set(found["services"]) == {"linux", "linux-tailscale"}
    node = found["services"]["linux"]
    assert node["network_mode"] == "service:linux-tailscale"
    assert node["depends_on"] == {"linux-tailscale": {"condition": "service_healthy"}}
    # An engine refuses these for a container in the namespace of another.
    assert not {"ports", "networks", "extra_hosts", "hostname", "dns"} & node.keys()
    assert services_of(tailnet.node("linux")) == ["linux-tailscale", "linux"]


def test_the_sidecar_has_what_it_needs_and_no_more(tailnet: ClusterPlan) -> None:
    found = compose(tailnet)
    sidecar = found["services"]["linux-tailscale"]
    assert sidecar["image"] == IMAGE
    assert sidecar["environment"] == {"TS_HOSTNAME": "local-linux"}
    assert sidecar["networks"] == ["cluster"]
    assert not {"ports", "command", "privileged", "network_mode"} & sidecar.keys()
    assert "grep -Fx 100.64.0.9" in sidecar["healthcheck"]["test"][1]
    assert found["networks"]["cluster"]["labels"] == {LABEL_CLUSTER: tailnet.folder.name}


def test_the_sidecar_is_the_clusters_and_no_node(tailnet: ClusterPlan) -> None:
    labels = compose(tailnet)["services"]["linux-tailscale"]["labels"]
    assert labels == {LABEL_CLUSTER: tailnet.folder.name, LABEL_SIDECAR: "linux"}
    assert LABEL_NODE not in labels


def test_who_the_sidecar_is_outlives_the_cluster(tailnet: ClusterPlan) -> None:
    found = compose(tailnet)
    (mounted,) = found["services"]["linux-tailscale"]["volumes"]
    assert mounted["target"] == "/var/lib/tailscale"
    name = f"{tailnet.folder.name}-linux-tailscale"
    assert found["volumes"] == {mounted["source"]: {"name": name, "external": True}}


def test_the_key_is_handed_over_as_a_file_of_the_sidecar_alone(tailnet: ClusterPlan) -> None:
    found = compose(tailnet)
    assert found["secrets"]["tailscale"] == {"file": "/a $$HOME $${b}/secrets/key"}
    assert found["services"]["linux-tailscale"]["secrets"] == ["tailscale"]
    assert found["services"]["linux"]["secrets"] == ["token"]


def test_names_of_a_tailnet_are_not_too_long(spec: ClusterSpec, lock: Lock) -> None:
    plan = planned(spec, lock, network="tailscale", address="100.64.0.9")
    long = replace(plan, name="c" * 62)
    sidecar = compose(long)["services"]["linux-tailscale"]
    assert sidecar["environment"]["TS_HOSTNAME"] == "c" * 62


def test_a_node_that_falls_back_needs_no_tailnet(spec: ClusterSpec, lock: Lock) -> None:
    nodes = tuple(
        replace(n, network="tailscale", address="100.64.0.9") if n.name == "linux" else n
        for n in spec.nodes
    )
    plan = build(replace(spec, nodes=nodes), lock, HOME, no_containers={"here": NO_ENGINE})
    assert (plan.node("linux").network, plan.node("linux").advertise) == ("host", "127.0.0.2")


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_others_have_no_sidecar(spec: ClusterSpec, lock: Lock, network: str) -> None:
    plan = planned(spec, lock, network=network)
    found = compose(plan)
    assert set(found["services"]) == {"linux"}
    assert set(found["secrets"]) == {"token"}
    assert "volumes" not in found
    assert services_of(plan.node("linux")) == ["linux"]
    assert ("networks" in found) == (network == "bridge")
    assert "extra_hosts" in found["services"]["linux"]


def test_in_the_hosts_network_all_names_have_the_hosts_addresses(
    spec: ClusterSpec, lock: Lock
) -> None:
    plan = planned(spec, lock, network="bridge")
    linux = plan.node("linux")
    beside = replace(linux, name="beside", advertise=linux.address, network="host")
    both = replace(plan, nodes=(*plan.nodes, beside))
    assert extra_hosts(both, beside) == host_names(both)
    assert linux.advertise in host_names(both)

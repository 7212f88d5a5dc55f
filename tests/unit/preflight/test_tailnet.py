"""The tailnet, from what ``tailscale status --json`` prints.

Its form is that of ipnstate.Status in Tailscale's source; none of this was recorded on a tailnet.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from saf_env import probe
from saf_env.preflight.base import Finding
from tests.unit.preflight.test_checks import changed, make_facts, make_node, verdict
from tests.unit.preflight.test_peers import plan_of
from tests.unit.preflight.test_peers import verdict as of_several

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
STATUS: dict[str, Any] = {
    "Version": "1.90.6-t7a1b2c3d4",
    "TUN": True,
    "BackendState": "Running",
    "AuthURL": "",
    "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
    "Self": {
        "HostName": "alpha",
        "DNSName": "alpha.tail1234.ts.net.",
        "OS": "macOS",
        "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
        "CurAddr": "",
        "Relay": "fra",
        "Online": True,
        "KeyExpiry": "2026-05-01T00:00:00Z",
    },
    "Health": [],
    "MagicDNSSuffix": "tail1234.ts.net",
    "Peer": {
        "nodekey:b": {
            "HostName": "beta",
            "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"],
            "CurAddr": "192.168.1.7:41641",
            "Relay": "fra",
            "Online": True,
            "Active": True,
        },
        "nodekey:x": {"HostName": "phone", "TailscaleIPs": ["100.64.0.3"], "Online": False},
    },
}

STOPPED: dict[str, Any] = {
    "member": True,
    "command": "/usr/bin/tailscale",
    "error": "",
    "state": "Stopped",
    "expires": None,
    "peers": [],
}


def judged(*changes: tuple[str, object], gone: bool = False, **seen: Any) -> Finding:
    """What is said of alpha when values of its status, at dotted paths, are others.

    ``gone``: whether it has its address no more.
    """
    status = copy.deepcopy(STATUS)
    for path, value in changes:
        *parents, last = path.split(".")
        inner = status
        for key in parents:
            inner = inner[key]
        inner[last] = value
    found = probe.tailnet_status(status, ["100.64.0.2"], NOW)
    fact = {"member": True, "command": "/usr/bin/tailscale", "error": "", **found, **seen}
    plan, places = plan_of("alpha", "beta"), {"alpha": "100.64.0.1", "beta": "100.64.0.2"}
    hosts = {
        name: dataclasses.replace(host, address=places[name]) for name, host in plan.hosts.items()
    }
    plan = dataclasses.replace(plan, hosts=hosts)
    own = [] if gone else ["100.64.0.1"]
    address = {"address": "100.64.0.1", "resolved": ["100.64.0.1"], "own": own}
    return of_several("tailnet", plan, {"alpha": {"tailnet": fact, "address": address}}, "alpha")


def test_one_that_is_well() -> None:
    assert (judged().level, judged().evidence) == ("ok", "its key expires in 120 days")
    assert judged(("Self.KeyExpiry", None)).evidence == ""


@pytest.mark.parametrize(
    ("path", "value", "level", "words"),
    [
        ("BackendState", "Stopped", "fail", "tailscale up"),
        ("BackendState", "NeedsLogin", "fail", "Tailscale says NeedsLogin"),
        ("BackendState", "NoState", "fail", "/usr/bin/tailscale status"),
        ("Self.KeyExpiry", "2025-12-30T00:00:00Z", "fail", "2 days ago"),
        ("Self.KeyExpiry", "2026-01-05T00:00:00Z", "warn", "its key expires in 4 days"),
        ("Peer.nodekey:b.CurAddr", "", "warn", "beta is reached by relay fra only"),
        ("Peer.nodekey:b.Online", False, "warn", "beta is offline"),
        ("Peer.nodekey:b.Expired", True, "warn", "the key of beta has expired"),
        ("Peer.nodekey:x.Active", True, "ok", ""),  # no host of the cluster
        ("Peer", None, "ok", ""),
    ],
)
def test_what_is_wrong(path: str, value: object, level: str, words: str) -> None:
    found = judged((path, value), gone=level == "fail")
    assert found.level == level, found
    assert words in f"{found.summary} {found.evidence} {found.hint}"


@pytest.mark.parametrize(
    ("path", "value"),
    [("BackendState", "Stopped"), ("Self.KeyExpiry", "2025-12-30T00:00:00Z")],
)
def test_an_address_that_is_there_may_be_of_another_network(path: str, value: str) -> None:
    found = judged((path, value))
    assert found.level == "warn", found
    assert "the host has 100.64.0.1 all the same" in found.evidence
    assert found.hint.startswith("unless another network gave it the address: ")


def test_an_address_that_nobody_looked_at_is_no_failure() -> None:
    node = make_node("head", 6380)
    facts = changed(make_facts(node), "tailnet", STOPPED)
    del facts["facts"]["address"]
    assert verdict("tailnet", facts, node).level == "warn"


def test_a_peer_without_traffic_has_no_path_yet() -> None:
    assert judged(("Peer.nodekey:b.Active", False), ("Peer.nodekey:b.CurAddr", "")).level == "ok"


def test_one_that_cannot_be_asked() -> None:
    found = judged(error="failed to connect to local tailscaled")
    assert (found.level, found.evidence) == ("warn", "failed to connect to local tailscaled")
    assert judged(command="").level == "ok"


def test_hosts_that_are_in_none() -> None:
    node = make_node("head", 6380)
    assert verdict("tailnet", make_facts(node), node).level == "ok"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("100.64.0.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("100.63.255.255", False),
        ("fd7a:115c:a1e0::1", True),
        ("fd7a:115c:a1e1::1", False),
        ("beta.tail1234.ts.net", False),
        ("192.168.1.7", False),
    ],
)
def test_addresses_of_a_tailnet(address: str, inside: bool) -> None:
    assert probe.in_tailnet(address) is inside

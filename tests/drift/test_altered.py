"""Single differences that one machine cannot be made to have: each is found, by altered facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from saf_env.plan.model import ClusterPlan
from tests.drift.node import Change, Facts, Make, Seen, Table, prove

raises = Table()


# Of the machine


@raises("worker-ports warn")
def more_cpus_found_than_ports(here: Change) -> str:
    here.plan = lambda plan: _with_head(plan, cpus=None)
    here.altered = lambda facts: facts["head"]["facts"]["platform"].update(cpus=99)
    return "99 CPUs"


@raises("cpu fail")
def fewer_cpus_than_planned(here: Change) -> str:
    here.altered = lambda facts: facts["head"]["facts"]["platform"].update(cpus=0)
    return "the host has 0"


@raises("swap warn")
def memory_swapped_out(here: Change) -> str:
    swap = {"total": 2**45, "used": 2**44}
    here.altered = lambda facts: facts["head"]["facts"].update(swap=swap)
    return "swapped out"


@raises("exposure warn")
def address_of_the_internet(here: Change) -> str:
    here.altered = lambda facts: facts["head"]["facts"]["address"].update(default="8.8.8.8")
    return "8.8.8.8"


@raises("temp-dir fail")
def temp_dir_of_sixty_characters(here: Change) -> str:
    here.plan = lambda plan: _with_head(plan, temp_dir=Path("/" + "x" * 59))
    here.altered = lambda facts: None
    return "too long"


@raises("platform fail", "python-arch fail")
def machine_of_another_architecture(here: Change) -> str:
    here.altered = lambda facts: [
        facts["head"]["facts"][name].update(machine="aarch64")
        for name in ("platform", "interpreter")
    ]
    return "linux aarch64"


@raises("os-version warn")
def old_system(here: Change) -> str:
    here.altered = lambda facts: facts["head"]["facts"]["platform"].update(version="glibc 2.31")
    return "glibc 2.31"


# Hosts beside each other


@raises("token fail")
def token_other_than_the_heads(here: Change) -> str:
    here.altered = lambda facts: facts["worker"]["facts"]["token"].update(sha256="0" * 64)
    return "another token than the head's"


def _apart(plan: ClusterPlan) -> ClusterPlan:
    """The plan with the worker on a host of its own."""
    there = dataclasses.replace(plan.hosts["here"], name="there", address="127.0.0.3", ssh="there")
    head, worker = plan.nodes
    worker = dataclasses.replace(worker, host="there", address="127.0.0.3", advertise="127.0.0.3")
    return dataclasses.replace(plan, hosts={**plan.hosts, "there": there}, nodes=(head, worker))


@raises("clock warn")
def clock_off(here: Change) -> str:
    here.basis, here.altered = _apart, lambda facts: _clock(facts, 8.0)
    return "4.0 s ahead of"


@raises("clock fail")
def clock_wrong(here: Change) -> str:
    here.basis, here.altered = _apart, lambda facts: _clock(facts, -80.0)
    return "behind"


def _clock(facts: Facts, offset: float) -> None:
    facts["head"]["facts"]["clock"] = {"offset": 0.0, "within": 0.0}
    facts["worker"]["facts"]["clock"] = {"offset": offset, "within": 0.0}


@raises("hostname warn")
def name_of_two_hosts(here: Change) -> str:
    def same(facts: Facts) -> None:
        for node in facts.values():
            node["facts"]["platform"]["hostname"] = "twin"

    here.basis, here.altered = _apart, same
    return "is called twin too"


@raises("address fail")
def address_of_two_hosts(here: Change) -> str:
    own = {"address": "192.0.2.7", "resolved": ["192.0.2.7"], "own": ["192.0.2.7"]}

    def same(facts: Facts) -> None:
        for node in facts.values():
            node["facts"]["address"].update(own)

    here.basis, here.altered = _apart, same
    return "same address"


def _with_head(plan: ClusterPlan, **changed: Any) -> ClusterPlan:
    head = dataclasses.replace(plan.head, **changed)
    return dataclasses.replace(plan, nodes=(head, *plan.nodes[1:]))


@pytest.mark.parametrize(("make", "expected"), raises.cases)
def test_found(
    change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]
) -> None:
    prove(change, make, expected, healthy)

"""Which other hosts are refused before anything is made on them."""

from __future__ import annotations

import dataclasses

import pytest

from saf_env.cluster.provisioning import _refuse_unfit
from saf_env.errors import PreflightError
from saf_env.plan.model import NodePlan
from saf_env.provision.survey import read
from tests.unit.preflight.macs import with_mlx
from tests.unit.preflight.test_checks import make_node, make_plan

OLD = read({"system": "Linux", "machine": "x86_64", "glibc": "glibc 2.34", "login": "/home/a"})


def refuse(*nodes: NodePlan) -> None:
    plan = make_plan(*(dataclasses.replace(node, host="beta") for node in nodes))
    _refuse_unfit(plan, {"beta": OLD}, {"beta": []})


def test_an_old_host_is_refused_where_a_process_of_it_needs_mlx() -> None:
    plain, fast = make_node("head", 6380), with_mlx(make_node("fast", 6480))
    refuse(plain)
    refuse(plain, dataclasses.replace(fast, kind="container"))
    with pytest.raises(PreflightError, match=r"beta: it has glibc 2\.34; MLX needs glibc 2\.35"):
        refuse(plain, fast)

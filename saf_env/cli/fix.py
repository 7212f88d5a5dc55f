"""Repairs what can be repaired safely: environments, made anew, and the token."""

from __future__ import annotations

import os
from collections.abc import Sequence

from saf_env.cli.context import Context
from saf_env.cli.output import Progress
from saf_env.cluster import state as states
from saf_env.cluster.token import ensure_token, mend_token
from saf_env.errors import BringUpError, PreflightError
from saf_env.plan.build import token_path
from saf_env.plan.model import EnvironmentPlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import ENVIRONMENT
from saf_env.provision.environments import ensure_environment


def fix(
    context: Context, nodes: Sequence[NodePlan], found: Sequence[Finding], progress: Progress
) -> list[str]:
    """Repair what ``found`` says is wrong with ``nodes``; returns what was done, line by line.

    Raises:
        PreflightError: a node runs in the environment that would have to be replaced.
    """
    # A check that could not be judged (skip) has an environment that is not there at all.
    bad = [f for f in found if f.level == "fail" or (f.level == "skip" and f.id in ENVIRONMENT)]
    done: list[str] = []
    with states.held(context.home, context.plan.name, "saf-env check --fix"):
        for node in nodes:
            wrong = {f.id for f in bad if f.node == node.name}
            if wrong & ENVIRONMENT:
                refuse_in_use(context, node.environment)
                progress.step(f"making the environment of {node.name} anew")
                if ensure_environment(
                    node.environment, context.uv, progress.step, rebuild=_is_old(node, done)
                ):
                    done.append(f"made the environment {node.environment.key} anew")
        if any(f.id == "token" for f in bad):
            done += _token(context)
    return done


def _is_old(node: NodePlan, done: Sequence[str]) -> bool:
    """Whether the node's environment was not made in this very call, for a node that shares it."""
    return not any(node.environment.key in line for line in done)


def refuse_in_use(context: Context, environment: EnvironmentPlan) -> None:
    """Raise PreflightError when a node runs in ``environment``, which is about to be replaced."""
    state = states.read(context.home, context.plan.name)
    running = {found.node for found in context.runtime().find(state.recorded)}
    inside = [
        node.name
        for node in context.plan.nodes
        if node.environment.key == environment.key and node.name in running
    ]
    if inside:
        raise PreflightError(
            f"the environment {environment.key} has to be made anew, and {', '.join(inside)} "
            "runs in it",
            hint="run `saf-env down`, then `saf-env check --fix`, then `saf-env up`",
        )


def make_token(context: Context) -> bool:
    """Make the cluster's token unless it is there; True when it was made.

    Raises:
        BringUpError: it is not there, and nodes run that were started with it.
    """
    path = token_path(context.home, context.plan.name)
    if not os.path.exists(path) and _runs(context):
        raise BringUpError(
            f"the token {path} is gone, and the cluster that runs lets nobody in without it",
            hint="put the file back; or run `saf-env down`, then `saf-env up`, which makes another",
        )
    return ensure_token(context.home, context.plan.name)


def _runs(context: Context) -> bool:
    """Whether a node of the cluster runs."""
    state = states.read(context.home, context.plan.name)
    return bool(context.runtime().find(state.recorded))


def _token(context: Context) -> list[str]:
    """Make a missing token; mend one that is there, or say why that is the user's to do."""
    if make_token(context):
        return ["made the token"]
    return mend_token(context.home, context.plan.name, running=_runs(context))

"""Mends what can be mended safely: the token, names of nodes, environments and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saf_env.cluster import state as states
from saf_env.cluster.hold import Work, hold
from saf_env.cluster.in_use import made_of, refuse_in_use
from saf_env.cluster.prepare import make_image, make_token, name_lines
from saf_env.cluster.project import Project, found_nodes
from saf_env.cluster.provisioning import provision_hosts
from saf_env.cluster.token import fetch_token, mend_token
from saf_env.errors import HostUnreachableError, PreflightError, ToolchainError
from saf_env.plan.build import token_path
from saf_env.plan.model import EnvironmentPlan, HostPlan, ImagePlan, NodePlan
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import ENVIRONMENT, FIXABLE
from saf_env.provision.environments import ensure_environment
from saf_env.provision.folders import Notify

_INSTALLED = ENVIRONMENT | {"image-present"}
"""Checks of what a node is installed in, an environment or an image."""


def fix(
    project: Project,
    nodes: Sequence[NodePlan],
    found: Sequence[Finding],
    step: Notify,
    notice: Notify,
) -> None:
    """Mend what ``found`` says is wrong with ``nodes``, as far as that is ours to do.

    Args:
        project: their cluster.
        nodes: those that were looked at.
        found: the findings on them that may be acted on.
        step: gets one line for each step that takes time.
        notice: gets a line before each thing that is mended, and one when it could not be.

    Raises:
        BringUpError: the token is gone, and nodes run that were started with it.
    """
    # Nothing can be done on a host whose key is not trusted, and trusting it is the user's.
    barred = {f.node for f in found if f.id == "ssh-host-key" and f.level == "fail"}
    nodes = [node for node in nodes if node.name not in barred]
    acted = [f for f in found for n in nodes if n.name == f.node and _is_ours(f, n)]
    if not acted:
        return
    ids = {finding.id for finding in acted}
    # What a failure explains needs no mending of its own.
    told = [f for f in acted if f.level != "skip"] or acted
    notice(f"mending {', '.join(dict.fromkeys(f.id for f in told))}")
    unsound = {f.node for f in acted if f.id in _INSTALLED}
    hosts, work = project.hosts(), Work(project.plan.name, "check --fix", project.plan.home)
    with (
        states.held(project.plan.home, project.plan.name, "saf-env check --fix"),
        hold(hosts, work, [node.host for node in nodes]) as lost,
    ):
        nodes = _reached(project, nodes, lost, notice)
        if "token" in ids:
            _token(project, notice, alone=not lost)
        if "advertised-name" in ids:
            _names(project, notice)
        if _elsewhere(project, nodes) and make_token(project):  # they are handed it
            notice("made the token")
        unsound -= _by_a_running_interpreter(project, nodes, acted, notice)
        names = [node.name for node in nodes]
        new = provision_hosts(project, step, only=names) if names else set()
        made = {
            (n.host, what.key): (project.plan.host_of(n), what)
            for n in nodes
            if n.name in unsound and (what := made_of(n)) and (n.host, what.key) not in new
        }
        for host, what in made.values():
            try:
                _make(project, host, what, step, notice)
            except (PreflightError, ToolchainError) as error:  # the others may do
                notice(f"{error.message}{f'; {error.hint}' if error.hint else ''}")


def _reached(
    project: Project,
    nodes: Sequence[NodePlan],
    lost: Mapping[str, HostUnreachableError],
    notice: Notify,
) -> list[NodePlan]:
    """Those of ``nodes`` that can be mended without the hosts of ``lost``, which are told."""
    plan, hosts = project.plan, project.hosts()
    hosts.give_up(lost)
    for name, error in lost.items():
        notice(f"going on without {name}, which cannot be asked: {error.message}")
    left = [node for node in nodes if node.host not in lost]
    if lost and not token_path(plan.home, plan.name).exists():
        notice(f"made no token: nodes may run with one on {', '.join(lost)}")
        left = [node for node in left if plan.host_of(node).here]  # others would be handed it
    return left


def _by_a_running_interpreter(
    project: Project, nodes: Sequence[NodePlan], acted: Sequence[Finding], notice: Notify
) -> set[str]:
    """Names of nodes whose unsound interpreter would be replaced while nodes run by it."""
    ids = ("python-build", "python-intact")
    broken = {f.node for f in acted if f.id in ids and f.level == "fail"}
    running = {one.node for one in found_nodes(project)} if broken else set()
    kept = set()
    for node in (n for n in nodes if n.name in broken and n.kind == "native"):
        users = [
            other.name
            for other in project.plan.on(node.host)
            if other.name in running
            and other.kind == "native"
            and other.environment.interpreter == node.environment.interpreter
        ]
        if users:
            kept.add(node.name)
            notice(
                f"the interpreter of {node.name} has to be made anew, and {', '.join(users)} runs "
                "by it; run `saf-env down`, then `saf-env check --fix`, then `saf-env up`"
            )
    return kept


def _is_ours(finding: Finding, node: NodePlan) -> bool:
    """Whether something can be done about ``finding``, and it is ours to do."""
    if finding.id == "advertised-name":
        # On a host without a native node it is a warning; its remedy is the same.
        return finding.level in ("fail", "warn")
    if finding.id in _INSTALLED and not made_of(node):
        return False
    # A new environment would take the library of the system's Python as it is now.
    source = node.environment.interpreter.source
    if finding.id == "python-intact" and (node.kind, source) == ("native", "system"):
        return finding.level == "skip"
    # An environment that could not be judged (skip) is not there at all; of an image, its engine
    # or image-present says why.
    absent = finding.level == "skip" and finding.id in ENVIRONMENT and node.kind == "native"
    return finding.id in FIXABLE and (finding.level == "fail" or absent)


def _elsewhere(project: Project, nodes: Sequence[NodePlan]) -> bool:
    return any(not project.plan.host_of(node).here for node in nodes)


def _token(project: Project, notice: Notify, *, alone: bool) -> None:
    """Make a missing token; mend one that is there, or say why that is the user's to do.

    Where it is another host's to make, it is fetched from there if the one here is of no use.

    Args:
        project: the cluster.
        notice: gets what was done, or why nothing was.
        alone: whether all hosts could be asked what runs there.
    """
    plan = project.plan
    path = token_path(plan.home, plan.name)

    def fetch() -> None:
        fetch_token(path, plan, project.way_to_head())

    elsewhere = bool(project.hosts().unasked)
    if alone and not elsewhere and make_token(project):
        notice("made the token")
        return
    running = not alone or bool(found_nodes(project))
    way = fetch if elsewhere else None
    for line in mend_token(plan.home, plan.name, running=running, fetch=way):
        notice(line)


def _names(project: Project, notice: Notify) -> None:
    """Make the cluster's lines in ``/etc/hosts`` what they have to be; others are left alone."""
    lines = name_lines(project)
    changed, refused = project.hosts().write_names(lines)
    if changed:
        where = ", ".join(changed)
        notice(f"wrote to /etc/hosts of {where}, until `saf-env down`: {'; '.join(lines)}")
    for host, why in refused.items():
        notice(f"/etc/hosts of {host} cannot be written: {why}")
    if not changed and not refused:
        notice("the cluster's lines are in /etc/hosts; what else names its nodes is left alone")


def _make(
    project: Project,
    host: HostPlan,
    what: EnvironmentPlan | ImagePlan,
    step: Notify,
    notice: Notify,
) -> None:
    """Make an environment anew, or an image: from nothing, when there is one and it is wrong."""
    if isinstance(what, EnvironmentPlan) and not host.here:
        refuse_in_use(project, what, host)
        notice(f"making the environment {what.key} on {host.name} anew")
        provision_hosts(project, step, rebuild={host.name: [what]})
        return
    if isinstance(what, EnvironmentPlan):
        refuse_in_use(project, what)
        notice(f"making the environment {what.key} anew")
        ensure_environment(what, project.uv, step, rebuild=True)
        return
    from saf_env.provision.images import built

    rebuild = bool(built(what, project.hosts()[host.name].engine))
    if rebuild:
        refuse_in_use(project, what, host)
    where = "" if host.here else f" on {host.name}"
    notice(f"making the image {what.tag}{where}{' anew' if rebuild else ''}")
    make_image(project, host.name, what, step, rebuild=rebuild)

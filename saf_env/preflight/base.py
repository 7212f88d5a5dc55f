"""What a check is: a named requirement, judged from a plan and facts, giving findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from saf_env.plan.model import ClusterPlan, NodePlan
from saf_env.platforms import PLATFORMS

Level = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """The verdict of one check on one node.

    Attributes:
        id: stable name of the check, as in ``saf-env check --only ID``.
        node: name of the node.
        level: ``fail`` stops a join, ``warn`` does not, ``skip`` says why nothing could be judged,
            and stops a join where the check could have said ``fail``.
        summary: one line: what is so.
        evidence: what was seen, as short text; empty when the summary says it all.
        hint: what to do next; empty when nothing is to be done.
    """

    id: str
    node: str
    level: Level
    summary: str
    evidence: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a check says; a :class:`Finding` without the names."""

    level: Level
    summary: str
    evidence: str = ""
    hint: str = ""


class UnknownFactError(Exception):
    """A fact that a check needs could not be gathered; the message says why."""


@dataclass(frozen=True)
class Case:
    """All that a check may look at.

    Attributes:
        cluster: the plan of the cluster.
        node: the node that is judged.
        facts: what :func:`saf_env.probe.gather` gave for it, and ``user_variables``.
        lock_reasons: why the lock is stale; empty when it is fresh.
        running: whether this node of ours is already up, so that its own processes are in order.
        peers: facts of all nodes that are looked at, by name.
    """

    cluster: ClusterPlan
    node: NodePlan
    facts: Mapping[str, Any]
    lock_reasons: Sequence[str] = field(default=())
    running: bool = False
    peers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def os_of(self, node: NodePlan) -> str:
        """``macos`` or ``linux``, of ``node``'s host; a container's own is always Linux."""
        return PLATFORMS[self.cluster.host_of(node).platform].os

    @property
    def on_mac(self) -> bool:
        """Whether the node's host is a Mac."""
        return self.os_of(self.node) == "macos"

    def facts_of(self, node: NodePlan) -> Mapping[str, Any] | None:
        """The facts of ``node``, as of the node that is judged; None where nobody looked."""
        return self.facts if node.name == self.node.name else self.peers.get(node.name)

    def of_hosts(self, name: str) -> dict[str, Any]:
        """The fact called ``name`` of every host where it is known, by host."""
        nodes = (node for node in self.cluster.nodes if node.name in self.peers)
        return {
            node.host: self.peers[node.name]["facts"][name]
            for node in nodes
            if name in self.peers[node.name]["facts"]
        }

    def host_is_asked(self) -> None:
        """Do nothing where the node's host could be asked: what is missing then, is missing there.

        Raises:
            UnknownFactError: the host cannot be reached, or its key is not trusted.
        """
        unasked = self.facts["unknown"].get("host_key", "")
        if reason := self.facts["facts"].get("host_key", {}).get("error", unasked):
            raise UnknownFactError(reason)

    def fact(self, name: str) -> Any:
        """The fact called ``name``, see :mod:`saf_env.probe`.

        Raises:
            UnknownFactError: it could not be gathered.
        """
        known = self.facts["facts"]
        if name not in known:
            reason = self.facts["unknown"].get(name, "the probe did not look")
            raise UnknownFactError(reason)
        return known[name]


def everywhere(node: NodePlan) -> bool:
    """Whatever ``node`` is."""
    return True


def in_container(node: NodePlan) -> bool:
    """Whether ``node`` is a container."""
    return node.kind == "container"


@dataclass(frozen=True)
class Check:
    """One named requirement.

    Attributes:
        id: its stable name.
        scope: what it is about: the ``node`` alone, or its place in the ``cluster``.
        level: the worst it can say.
        title: what must be so, in a few words.
        judge: gives the verdict; it never runs a command.
        explain: why it matters and what counts as evidence, for people.
        remedy: what helps, whatever was found; a finding's hint says it for the very case.
        applies: tells whether a node has this requirement at all; one that has not gets no finding.
    """

    id: str
    scope: Literal["node", "cluster"]
    level: Level
    title: str
    judge: Callable[[Case], Verdict]
    explain: str
    remedy: str
    applies: Callable[[NodePlan], bool] = everywhere


def ok(summary: str, evidence: str = "") -> Verdict:
    """The requirement is met."""
    return Verdict("ok", summary, evidence)


def warn(summary: str, evidence: str = "", hint: str = "") -> Verdict:
    """The requirement is not met in a way that does not stop a join."""
    return Verdict("warn", summary, evidence, hint)


def fail(summary: str, evidence: str = "", hint: str = "") -> Verdict:
    """The requirement is not met, and the node may not join."""
    return Verdict("fail", summary, evidence, hint)


def gib(size: int) -> str:
    """``size`` bytes for people."""
    return f"{size / 2**30:.1f} GiB"


def listed(names: Sequence[str], most: int = 5) -> str:
    """``names`` in one line, the first ``most`` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def damages(seen: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with files, in a summary, and which they are; empty when nothing is.

    Args:
        seen: of :func:`saf_env.probe.files` or ``python_files``.
    """
    (changed, names), (missing, gone) = seen["changed"], seen["missing"]
    if not changed and not missing:
        return "", ""
    parts = [f"changed: {listed(names)}"] if changed else []
    parts += [f"missing: {listed(gone)}"] if missing else []
    summary = f"{changed + missing} of {seen['files']} files are not as they were installed"
    return summary, "; ".join(parts)


def together(found: Sequence[Finding]) -> list[tuple[Finding, str]]:
    """Findings that differ in the node only, as one with the names of all their nodes."""
    groups: dict[Finding, list[str]] = {}
    for finding in found:
        groups.setdefault(replace(finding, node=""), []).append(finding.node)
    return [(finding, ", ".join(names)) for finding, names in groups.items()]

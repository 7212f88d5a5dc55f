"""Checks of hosts against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saf_env.preflight.base import Case, Check, UnknownFactError, Verdict, fail, ok, warn

CLOCK_WARNS, CLOCK_FAILS = 2.0, 30.0
"""Seconds from the middle of all hosts. NTP keeps machines within milliseconds."""


def clock(case: Case) -> Verdict:
    """The clock of the node's host agrees with those of the others."""
    if len(case.cluster.hosts) < 2:
        return ok("one host, one clock")
    seen, hosts = case.fact("clock"), case.of_hosts("clock")
    own = {host.name: 0.0 for host in case.cluster.hosts.values() if host.here}
    offsets = sorted({**own, **{name: found["offset"] for name, found in hosts.items()}}.values())
    middle = (offsets[(len(offsets) - 1) // 2] + offsets[len(offsets) // 2]) / 2
    off = seen["offset"] - middle
    # As far as it is certain: an answer that took long says little.
    certain = max(0.0, abs(off) - seen["within"])
    where = "ahead of" if off > 0 else "behind"
    text = f"{abs(off):.1f} s {where} the middle of {len(offsets)} hosts"
    hint = f"let host {case.node.host} keep its time: {_KEEP_TIME[case.os_of(case.node)]}"
    if certain > CLOCK_FAILS:
        return fail("the clock is wrong", text, hint)
    if certain > CLOCK_WARNS:
        return warn("the clock is off", text, hint)
    return ok("the clocks of the hosts agree", text)


_KEEP_TIME = {
    "linux": "`sudo timedatectl set-ntp true`",
    "macos": "`sudo sntp -sS time.apple.com`, and the date set automatically in System Settings",
}


def hostname(case: Case) -> Verdict:
    """No other host of the cluster has the host's name."""

    # Of a container the platform is its own; its host's is the fact ``host``.
    def name(facts: Mapping[str, Any]) -> str:
        return str(facts.get("host", facts.get("platform", {})).get("hostname", ""))

    own = name(case.facts["facts"])
    if not own:
        raise UnknownFactError(case.facts["unknown"].get("platform", "the probe did not look"))
    same = {
        node.host
        for node in case.cluster.nodes
        if node.host != case.node.host
        and node.name in case.peers
        and name(case.peers[node.name]["facts"]) == own
    }
    if same:
        return warn(
            f"host {', '.join(sorted(same))} is called {own} too",
            "",
            "Ray's logs and dashboard would not tell them apart: give one of them another name",
        )
    return ok(f"no other host is called {own}")


CHECKS = (
    Check(
        "clock",
        "cluster",
        "fail",
        "a clock that agrees with the other hosts'",
        clock,
        "Logs, time-outs and certificates go by it. More than 2 s from the middle of all hosts is "
        "a warning, more than 30 s a failure.",
        "Let the host keep its time: `sudo timedatectl set-ntp true`, or on a Mac `sudo sntp -sS "
        "time.apple.com`.",
    ),
    Check(
        "hostname",
        "cluster",
        "warn",
        "a host name of its own",
        hostname,
        "Ray's logs and dashboard know hosts by name; two Macs often have the same.",
        "Give one of the hosts another name.",
    ),
)

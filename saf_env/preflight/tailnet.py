"""The check of a tailnet, for hosts whose address is in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saf_env.plan.model import NodePlan
from saf_env.preflight.base import Case, Check, Verdict, fail, listed, ok, warn

EXPIRY_WARNS = 7 * 24 * 3600.0
"""Seconds before its key expires that a host is warned of it."""

_REMEDIES = {
    "NeedsLogin": "log in on the host: `tailscale up`, or in Tailscale's menu on a Mac",
    "NeedsMachineAuth": "let the tailnet's admin approve the host",
    "Stopped": "connect on the host: `tailscale up`, or in Tailscale's menu on a Mac",
}
_RENEW = (
    "`tailscale up --force-reauth` on the host renews it; in the admin console, key expiry can be "
    "disabled for it"
)


def tailnet(case: Case) -> Verdict:
    """The tailnet is up on a host that is reached by it, its key valid, its paths direct."""
    seen = case.fact("tailnet")
    if not seen["member"]:
        return ok("its address is not of a tailnet")
    if not seen["command"]:
        return ok("not looked at: there is no command of Tailscale")
    if seen["error"]:
        what = "Tailscale does not say how the tailnet is"
        return warn(what, seen["error"], f"see what `{seen['command']} status` says on the host")
    if down := _down(seen):
        return _fatal_or_not(case, *down)
    return _well(case, seen["expires"])


def _down(seen: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What keeps the host out of its tailnet, evidence and remedy; None when nothing does."""
    if seen["state"] != "Running":
        hint = _REMEDIES.get(seen["state"], f"see what `{seen['command']} status` says there")
        return "the tailnet is not up", f"Tailscale says {seen['state']}", hint
    if seen["expires"] is not None and seen["expires"] <= 0:
        return "its key for the tailnet has expired", f"{_days(-seen['expires'])} ago", _RENEW
    return None


def _fatal_or_not(case: Case, what: str, evidence: str, hint: str) -> Verdict:
    """A failure only where the host's address went with its tailnet.

    Other networks give addresses of 100.64.0.0/10 too (NetBird, a provider's NAT), and Tailscale
    may be installed beside them and not in use.
    """
    place = case.facts["facts"].get("address")
    if place and not place["own"]:
        return fail(what, f"{evidence}, and {place['address']} is not the host's own", hint)
    if place:
        evidence += f"; the host has {listed(place['own'])} all the same"
    return warn(what, evidence, f"unless another network gave it the address: {hint}")


def _well(case: Case, left: float | None) -> Verdict:
    """How the tailnet does that is up; ``left``: seconds until the host's key expires, if ever."""
    wrong, hints = _paths(case)
    if left is not None and left < EXPIRY_WARNS:
        wrong, hints = [f"its key expires in {_days(left)}", *wrong], [_RENEW, *hints]
    if wrong:
        return warn("the tailnet is up, and not well", listed(wrong), "; ".join(hints))
    return ok("the tailnet is up", f"its key expires in {_days(left)}" if left else "")


def _paths(case: Case) -> tuple[list[str], list[str]]:
    """What is wrong on the way to other hosts, and what to do about it."""
    hosts = {host.address: host.name for host in case.cluster.hosts.values()}
    peers = [{**peer, "host": hosts[peer["address"]]} for peer in case.fact("tailnet")["peers"]]
    relayed = [f"{p['host']} is reached by relay {p['relay']} only" for p in peers if p["relay"]]
    expired = [f"the key of {p['host']} has expired" for p in peers if p["expired"]]
    away = [f"{p['host']} is offline" for p in peers if not p["online"] and not p["expired"]]
    hints = []
    if relayed:
        hints.append(
            "a relay is slow: let UDP out, and in to port 41641 of one of the two; `tailscale "
            "ping` tells when the path is direct"
        )
    if expired or away:
        hints.append("look at Tailscale on those hosts")
    return [*expired, *away, *relayed], hints


def _days(seconds: float) -> str:
    days = int(seconds // 86400)
    return f"{days} days" if days != 1 else "1 day"


def _in_its_host_s_network(node: NodePlan) -> bool:
    return node.network != "tailscale"  # such a node has a sidecar with an address of its own


CHECKS = (
    Check(
        "tailnet",
        "cluster",
        "fail",
        "a tailnet that is up",
        tailnet,
        "Of a host whose address is a tailnet's (100.64.0.0/10, fd7a:115c:a1e0::/48), as far as "
        "Tailscale's command is there to be asked: it must be up and its key valid. Where "
        "it is not and the host has its address all the same, that may be of another network "
        "(NetBird, a provider's NAT): a warning, as are a key that expires within a week, a host "
        "that is offline, and a path through a relay.",
        "`tailscale up` on the host, or Tailscale's menu on a Mac; an expired key is renewed with "
        "`tailscale up --force-reauth`.",
        _in_its_host_s_network,
    ),
)

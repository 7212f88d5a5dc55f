"""Checks of who may get in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saf_env.preflight.base import Case, Check, Verdict, fail, listed, ok, warn

_NEW = "stop the cluster with `saf-env down`, remove the file, then run `saf-env check --fix`"


def token(case: Case) -> Verdict:
    """There is a token, the head's, readable by its owner only, in a form that Ray takes whole."""
    seen = case.fact("token")
    path = seen["path"]
    if not seen["present"]:
        return fail("there is no token", path, "run `saf-env check --fix` or `saf-env up`")
    digest = f"digest {seen['sha256'][:12]}"
    return _fault(seen) or _another(case, seen) or ok("present, readable by you only", digest)


def _fault(seen: Mapping[str, Any]) -> Verdict | None:
    """What is wrong with the token's file."""
    path = seen["path"]
    if seen["link"] or not seen["file"]:
        return fail("the token is not a plain file", path, _NEW)
    if seen["owner"] != seen["uid"]:
        evidence = f"{path} belongs to user {seen['owner']}, not {seen['uid']}"
        return fail("the token belongs to another user", evidence, _NEW)
    if seen["mode"] & 0o177:
        return fail(
            "others may read the token",
            f"{path} has mode {seen['mode']:04o}",
            f"chmod 600 {path}, and if others have been on this machine, make a new one: {_NEW}",
        )
    if seen["problems"]:
        evidence = f"{path}: {'; '.join(seen['problems'])}"
        hint = "run `saf-env down`, then `saf-env check --fix`, which makes another"
        return fail("the token cannot be used", evidence, hint)
    return None


def _another(case: Case, seen: Mapping[str, Any]) -> Verdict | None:
    """That it is not the head's, as far as that one is looked at too."""
    head = case.cluster.head
    facts = case.facts_of(head)
    theirs = facts["facts"].get("token", {}).get("sha256", "") if facts else ""
    if theirs in ("", seen["sha256"]):
        return None
    evidence = f"digest {seen['sha256'][:12]}, {theirs[:12]} on {head.name}"
    hint = "run `saf-env up`, which gives every host the cluster's token"
    return fail("another token than the head's", evidence, hint)


def ssh_host_key(case: Case) -> Verdict:
    """The key of the node's host is the one that this machine's ssh knows."""
    if case.cluster.host_of(case.node).here:
        return ok("it is this machine")
    seen = case.fact("host_key")
    if not seen["error"]:
        return ok("known to this machine")
    what = "is not the known one" if seen["changed"] else "is not known"
    # The evidence is what all other checks of the node have as their reason.
    return fail(f"the host key {what}", seen["error"], seen["remedy"])


def exposure(case: Case) -> Verdict:
    """The ports of the node are not open to the internet."""
    seen, node = case.fact("address"), case.node
    places = {*seen["own"]}
    if node.kind == "native":  # a container's ports are published at the host's address only
        places |= {*seen["outgoing"], *filter(None, [seen["default"]])}
    public = sorted(place for place in places if _is_public(place))
    if not public:
        return ok("no address of the internet")
    return warn(
        "the host has an address of the internet",
        f"{listed(public)}: the node's ports are open there too",
        f"have a firewall let only the cluster's hosts in to TCP ports {node.ports.node_manager}-"
        f"{node.ports.max_worker}, or use the hosts' addresses in a network of your own: without "
        "the token nobody is let in, but metrics are told to anybody",
    )


def _is_public(address: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(address.partition("%")[0]).is_global


CHECKS = (
    Check(
        "token",
        "node",
        "fail",
        "a token that only you can read",
        token,
        "Ray's ports are open on all addresses; the token keeps others out. White space around it "
        "would become part of it on some nodes and not on others. It must be that of the head, as "
        "far as that one is looked at too: by digest, the token itself is never shown.",
        "`saf-env check --fix` makes a missing token, and closes one that others can read. One "
        "that is unusable is replaced while nothing runs.",
    ),
    Check(
        "ssh-host-key",
        "node",
        "fail",
        "a host whose key this machine knows",
        ssh_host_key,
        "A host that is reached by ssh shows a key. One that is not known, or is another than the "
        "known one, is never accepted by saf-env: the fingerprint and the command that trusts it "
        "are shown. The other hosts are checked all the same; `saf-env up` refuses (exit code 5).",
        "Compare the fingerprint on the host itself, then trust the key by the command that is "
        "shown.",
    ),
    Check(
        "exposure",
        "node",
        "warn",
        "no port open to the internet",
        exposure,
        "Most of Ray's ports are open on all addresses of the host. Looked at are the address in "
        "the cluster file, and those from which the host reaches the others and the internet. One "
        "of the internet is a warning: the token keeps others out, but metrics and health pages "
        "answer anybody. What a router or a provider forwards to the host cannot be seen.",
        "A firewall that lets only the cluster's hosts in, or hosts that meet in a network of "
        "their own, such as a tailnet.",
        lambda node: node.network != "tailscale",
    ),
)

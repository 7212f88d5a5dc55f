"""A bridge in the root namespace, and the cables between it and the machines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.hosts.machines.outside import MARK, outside, remove_rules

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def free_subnet() -> IPv4Network:
    """A network 10.77.N.0/24 that overlaps no route of this machine.

    Where it begins to look depends on the process, so that two runs at a time do not meet.
    """
    text = outside("ip", "-4", "route", "show", "table", "all").stdout
    routes = [
        IPv4Network(word, strict=False)
        for word in re.findall(r"^(?:\w+ )?(\d+\.\d+\.\d+\.\d+(?:/\d+)?)", text, re.MULTILINE)
    ]
    for step in range(256):
        subnet = IPv4Network(f"10.77.{(os.getpid() + step) % 256}.0/24")
        if not any(subnet.overlaps(route) for route in routes):
            return subnet
    raise AssertionError("every network of 10.77.0.0/16 is in use on this machine")


@dataclass
class Network:
    """The bridge ``name`` with the first address of ``subnet``; machines have the next ones."""

    name: str
    subnet: IPv4Network

    @property
    def gateway(self) -> str:
        """The address of the root namespace."""
        return str(self.subnet[1])

    def address(self, number: int) -> str:
        return str(self.subnet[number + 1])

    def cable(self, number: int) -> str:
        """The bridge's end of the cable of a machine."""
        return f"{self.name}v{number}"

    def up(self) -> None:
        outside(
            "ip",
            "-batch",
            "-",
            data=f"link add {self.name} type bridge\n"
            f"addr add {self.gateway}/24 dev {self.name}\n"
            f"link set {self.name} up\n",
        )
        # Where br_netfilter is loaded, frames from machine to machine go through FORWARD, and
        # Docker sets its policy to DROP.
        self._rule("filter", "FORWARD", "-i", self.name, "-o", self.name, "-j", "ACCEPT")

    def down(self) -> None:
        remove_rules(lambda _, comment: comment == f"{MARK} {self.name}")
        outside("ip", "link", "del", self.name, check=False)

    def plug(self, number: int, pid: int, *, internet: bool) -> None:
        """Give the network namespace of ``pid`` its cable.

        The hardware address is the same at each boot: the others remember it for a while.
        """
        third, fourth = IPv4Address(self.address(number)).packed[2:]
        hardware = f"02:5a:f0:00:{third:02x}:{fourth:02x}"
        cable = self.cable(number)
        outside(
            "ip",
            "-batch",
            "-",
            data=f"link add {cable} type veth peer name eth0 address {hardware} netns {pid}\n"
            f"link set {cable} master {self.name} up\n",
        )
        route = f"route add default via {self.gateway}\n" if internet else ""
        outside(
            *within(pid),
            "ip",
            "-batch",
            "-",
            data=f"link set lo up\naddr add {self.address(number)}/24 dev eth0\nlink set eth0 up\n"
            + route,
        )

    def unplug(self, number: int) -> None:
        """Remove the cable; its namespace may be gone, and its end with it."""
        outside("ip", "link", "del", self.cable(number), check=False)

    def let_out(self, number: int) -> None:
        """Let a machine reach what the root namespace reaches.

        Forwarding is switched on if it is off, and stays on: Docker needs it too.
        """
        if _FORWARD.read_text(encoding="ascii").strip() == "0":
            _FORWARD.write_text("1", encoding="ascii")
        address = self.address(number)
        away = ("!", "-o", self.name)
        self._rule("nat", "POSTROUTING", "-s", address, *away, "-j", "MASQUERADE")
        self._rule("filter", "FORWARD", "-i", self.name, "-s", address, *away, "-j", "ACCEPT")
        state = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
        back = ("!", "-i", self.name, "-o", self.name, "-d", address)
        self._rule("filter", "FORWARD", *back, *state, "-j", "ACCEPT")

    def _rule(self, table: str, chain: str, *rule: str) -> None:
        comment = ("-m", "comment", "--comment", f"{MARK} {self.name}")
        outside("iptables", "-w", "-t", table, "-I", chain, *comment, *rule)


def within(pid: int) -> list[str]:
    """What runs this machine's own programs in the network namespace of ``pid``."""
    return ["nsenter", f"--target={pid}", "--net", "--"]

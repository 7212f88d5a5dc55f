"""Macs, from the facts of several: what the plan makes of them, and what the checks say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saf_env import probe
from saf_env.preflight.base import Finding
from saf_env.preflight.registry import judge, may_join
from tests.unit.preflight import macs
from tests.unit.preflight.test_checks import changed, make_plan, verdict


def of(**facts: Any) -> dict[str, Finding]:
    """All that is said of a native node on a Mac with these facts, but for what is in order."""
    node, seen = macs.mac(**facts)
    return {f.id: f for f in judge(make_plan(node), node, seen, ()) if f.level != "ok"}


@pytest.mark.parametrize("facts", [macs.M3_ULTRA, macs.M2_MAX], ids=["M3 Ultra", "M2 Max"])
def test_a_mac_that_is_well(facts: dict[str, Any]) -> None:
    assert of(**{**facts, "platform": {"cpus": 1}}) == {}


def test_a_python_that_rosetta_translates() -> None:
    found = of(**macs.ROSETTA)
    assert set(found) == {"platform", "python-arch"}
    assert found["python-arch"].level == found["platform"].level == "fail"
    assert "Rosetta" in found["platform"].summary
    assert "arch` must print arm64" in found["python-arch"].hint


def test_a_macos_that_mlx_does_not_know() -> None:
    found = of(**macs.VENTURA)
    assert set(found) == {"os-version"}
    assert (found["os-version"].level, found["os-version"].evidence) == ("fail", "macOS 13.7.6")


def test_a_mac_that_falls_asleep() -> None:
    found = of(**macs.SLEEPY)
    assert set(found) == {"sleep"}
    assert found["sleep"].level == "warn"
    assert "after 1 min on mains power" in found["sleep"].evidence
    assert "sudo pmset -c sleep 0" in found["sleep"].hint
    assert of(power=macs.power(1, caffeinate=True)) == {}


def test_a_firewall_that_does_not_know_our_programs() -> None:
    found = of(**macs.WALLED)
    assert set(found) == {"firewall"}
    assert found["firewall"].level == "warn"
    assert "stealth mode" in found["firewall"].evidence
    assert macs.PYTHON in found["firewall"].evidence
    assert f"for p in {macs.PYTHON} {macs.RAYLET}/raylet; do sudo" in found["firewall"].hint
    known = [[macs.PYTHON, True], [f"{macs.RAYLET}/raylet", True]]
    assert of(firewall=macs.firewall(programs=known)) == {}
    assert of(firewall=macs.firewall(programs=[]))["firewall"].level == "warn"


def test_a_firewall_that_lets_nobody_in() -> None:
    found = of(firewall=macs.firewall(block_all=True))
    assert found["firewall"].level == "fail"
    assert "--setblockall off" in found["firewall"].hint


def test_a_firewall_that_does_not_tell_stops_nobody() -> None:
    known = [[macs.PYTHON, True]]
    found = of(firewall=macs.firewall(block_all=None, programs=known))
    assert (found["firewall"].level, set(found)) == ("warn", {"firewall"})
    assert "blocks all incoming connections is not known" in found["firewall"].summary


@pytest.mark.parametrize(
    ("state", "every", "blocks"),
    [
        (macs.FIREWALL_BLOCKS, "", True),
        (macs.FIREWALL_ON, macs.BLOCK_ALL_ON[0], True),
        (macs.FIREWALL_ON, macs.BLOCK_ALL_OFF[0], False),
        (macs.FIREWALL_ON, "", None),
        (macs.FIREWALL_ON, "socketfilterfw: not permitted\n", None),
        ("", "", None),
    ],
)
def test_only_plain_words_say_that_all_is_blocked(
    monkeypatch: pytest.MonkeyPatch, state: str, every: str, blocks: bool | None
) -> None:
    said = {"--getglobalstate": state, "--getblockall": every, "--getstealthmode": ""}
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(probe, "_output", lambda argv: said[argv[1]])
    monkeypatch.setattr(probe, "_listening_programs", list)
    found = probe.firewall({})
    assert (found["on"], found["block_all"], found["stealth"]) == (True, blocks, False)


def test_a_mac_whose_programs_do_not_answer_may_join_all_the_same() -> None:
    node, seen = macs.mac()
    for name in ("power", "firewall"):
        del seen["facts"][name]
        seen["unknown"][name] = "TimeoutExpired: 20 s"
    found = judge(make_plan(node), node, seen, ())
    assert may_join(found)
    assert [f.id for f in found if f.level == "warn"] == ["sleep", "firewall"]


def test_hosts_of_other_systems_are_not_asked() -> None:
    node, seen = macs.mac()
    linux = changed(seen, "power", {})
    plan = make_plan(node)
    host = dataclasses.replace(plan.hosts["here"], platform="linux-x86_64")
    plan = dataclasses.replace(plan, hosts={"here": host})
    assert verdict("sleep", linux, node, plan=plan).summary == "not a Mac"
    assert verdict("firewall", linux, node, plan=plan).summary == "not a Mac"


@pytest.mark.parametrize(
    ("info", "system", "remedy"),
    [
        (macs.DOCKER_DESKTOP, "Docker Desktop", "Settings > Resources"),
        (macs.ORBSTACK, "OrbStack", "OrbStack's settings"),
        (macs.COLIMA, "Colima (Ubuntu 24.04.2 LTS)", "colima start --memory GIB"),
    ],
    ids=["Docker Desktop", "OrbStack", "Colima"],
)
def test_engines_are_told_apart(info: dict[str, Any], system: str, remedy: str) -> None:
    plan, box, facts = macs.with_box(info)
    found = {f.id: f for f in judge(plan, box, facts, ())}
    assert [f.id for f in found.values() if f.level not in ("ok", "warn")] == []
    assert found["docker-vm"].evidence.startswith(f"{system} has {info['NCPU']} CPUs")
    plan, box, facts = macs.with_box(info, memory=info["MemTotal"] + 1)
    (small,) = judge(plan, box, facts, (), only=["docker-vm"])
    assert small.level == "fail"
    assert remedy in small.hint


def test_a_container_does_not_keep_its_mac_awake() -> None:
    plan, box, facts = macs.with_box(macs.ORBSTACK)
    facts["facts"]["power"] = macs.power(10)
    (found,) = judge(plan, box, facts, (), only=["sleep"])
    assert (found.level, found.summary) == (
        "warn",
        "the Mac falls asleep when nobody uses it, nodes and all",
    )


def test_what_macs_print() -> None:
    assert probe.mains_sleep(macs.PMSET_LAPTOP.format(minutes=10)) == 10
    assert probe.mains_sleep("") is None
    assert probe.kept_awake_by(macs.ASSERTIONS) == ["powerd"]
    assert probe.kept_awake_by(macs.ASSERTIONS + macs.CAFFEINATE) == ["caffeinate", "powerd"]
    yes = (macs.FIREWALL_ON, *macs.BLOCK_ALL_ON, *macs.STEALTH_ON)
    no = (macs.FIREWALL_OFF, *macs.BLOCK_ALL_OFF, *macs.STEALTH_OFF)
    assert [probe.says_on(text) for text in yes] == [True] * len(yes)
    assert [probe.says_on(text) for text in no] == [False] * len(no)
    assert [probe.says_on(text) for text in ("", "what?", macs.FIREWALL_BLOCKS)] == [None] * 3


def test_a_gpu_that_may_use_less_than_is_planned() -> None:
    node, facts = macs.mac(**macs.M3_ULTRA)
    node = dataclasses.replace(node, memory=400 * macs.GIB)
    plan = make_plan(node)
    found = verdict("metal", facts, node, plan=plan)
    assert (found.level, found.evidence) == ("warn", "Apple M3 Ultra may use 384.0 GiB or so")
    assert "iogpu.wired_limit_mb=409600" in found.hint
    raised = changed(facts, "metal.limit", 480 * macs.GIB)
    assert verdict("metal", raised, node, plan=plan).level == "ok"


def test_a_mac_without_a_gpu() -> None:
    assert probe.gpu_name(macs.IOREG) == "Apple M3 Ultra"
    assert probe.gpu_name("") == ""
    assert of(metal={"device": ""})["metal"].level == "warn"
    node, facts = macs.mac()
    del facts["facts"]["metal"]
    facts["unknown"]["metal"] = "FileNotFoundError: ioreg"
    found = verdict("metal", facts, node)
    assert (found.level, found.evidence) == ("skip", "FileNotFoundError: ioreg")


@pytest.mark.parametrize("text", macs.SWAP_USAGE)
def test_the_swap_space_of_a_mac(text: str) -> None:
    assert probe.swap_usage(text) == {"total": 3 * macs.GIB, "used": int(2014.25 * 2**20)}


def test_a_locked_disk_keeps_a_mac_away_that_nobody_sits_at() -> None:
    assert {text: probe.filevault_on(text) for text in macs.FILEVAULT} == macs.FILEVAULT
    with pytest.raises(ValueError, match="fdesetup says 'Error'"):
        probe.filevault_on("Error")
    node, facts = macs.mac(filevault={"on": True})
    plan = make_plan(node)
    assert verdict("filevault-boot", facts, node, plan=plan).level == "ok"
    there = dataclasses.replace(plan.hosts["here"], ssh="beta")
    plan = dataclasses.replace(plan, hosts={"here": there})
    found = verdict("filevault-boot", facts, node, plan=plan)
    assert (found.level, found.evidence) == ("warn", "FileVault is on")

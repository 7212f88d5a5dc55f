"""Services on hosts: what is asked of their managers, and what is told of the answers."""

from __future__ import annotations

import dataclasses
import io
import json
import plistlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster.hosts import Host, Hosts
from saf_env.cluster.managers import agent_state
from saf_env.cluster.runtimes import Runtimes
from saf_env.cluster.same_plan import plan_digest
from saf_env.cluster.services import elsewhere, install, refuse_containers, remove, status
from saf_env.engine import Engine
from saf_env.errors import BringUpError, UsageError
from saf_env.plan.model import ClusterPlan, HostPlan, ImagePlan
from saf_env.runtimes.base import Found, Started
from saf_env.runtimes.services import read
from saf_env.transports.base import CommandResult, Transport

FOLDER = "/home/anna b/.saf-env/local/.saf/clusters/local/services/linux"
UNIT = "saf-env-local-linux.service"


class Way:
    """A transport to beta: answers scripts by a word that they have, and keeps what is put."""

    host = "beta"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, tuple[int, str]] = {
            'id -un)" "$(pwd)': (0, "1000\nanna\n/home/anna b\n"),
            "echo bare": (0, "free\n"),
            "grep -qF": (0, "linux\n"),
        }

    def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
        shell, option, script, _name, *words = argv
        assert (shell, option) == ("sh", "-c")
        self.asked.append((script, *words))
        found = [answer for word, answer in self.answers.items() if word in script]
        code, said = found[0] if found else (0, "")
        return CommandResult(tuple(argv), "beta", code, said if not code else "", said, 0.1)

    def put(self, data: bytes, target: str, *, mode: int, timeout: float) -> None:
        assert mode == 0o600
        self.files[target] = data

    def words(self, script: str) -> tuple[str, ...]:
        """What the last script was given that has the text ``script`` in it."""
        return [tuple(words) for text, *words in self.asked if script in text][-1]


@dataclasses.dataclass
class Beta:
    plan: ClusterPlan
    hosts: Hosts
    way: Way
    running: list[Found]


def beta(plan: ClusterPlan, platform: str = "linux-x86_64") -> Beta:
    """The cluster of ``plan`` with both nodes on a host that is reached over SSH."""
    host = HostPlan("here", "100.64.0.2", platform, "beta", None, Path(".saf-env/local"))
    nodes = []
    for node in plan.nodes:
        path = Path(".saf-env/local/.saf/envs") / node.environment.key
        env = dataclasses.replace(node.environment, path=path)
        nodes.append(dataclasses.replace(node, environment=env))
    plan = dataclasses.replace(plan, hosts={"here": host}, nodes=tuple(nodes))
    way, running = Way(), list[Found]()
    native = SimpleNamespace(find=lambda: running, services=set())
    made = Host(
        host,
        cast(Transport, way),
        cast(Runtimes, SimpleNamespace(native=native)),
        cast(Engine, None),
        Path(".saf-env/local/.saf/python/agent"),
    )
    places = {node.name: "here" for node in nodes}
    return Beta(plan, Hosts({"here": made}, plan.folder, places, "here"), way, running)


def installed(there: Beta, *names: str) -> list[str]:
    steps: list[str] = []
    nodes = [there.plan.node(name) for name in names]
    install(there.plan, there.hosts, nodes, steps.append)
    return steps


def test_a_service_has_all_that_its_host_needs(plan: ClusterPlan) -> None:
    there = beta(plan)
    assert installed(there, "linux") == ["here: installing the service of linux"]
    files = there.way.files
    file = f"/home/anna b/.config/systemd/user/{UNIT}"
    assert files.keys() == {f"{FOLDER}/launcher.pyz", f"{FOLDER}/service.json", file}
    python = "/home/anna b/.saf-env/local/.saf/python/agent"
    command = f'"{python}" "-I" "-S" "{FOLDER}/launcher.pyz" "{FOLDER}/service.json"'
    assert f" {command}\n" in files[file].decode()
    service = read(files[f"{FOLDER}/service.json"].decode())
    node = there.plan.node("linux")
    assert service.digest == plan_digest(node, there.plan.address)
    assert service.node.environment.path == Path("/home/anna b") / node.environment.path
    with zipfile.ZipFile(io.BytesIO(files[f"{FOLDER}/launcher.pyz"])) as program:
        names = set(program.namelist())
    assert {"__main__.py", "saf_env/runtimes/launcher.py", "packaging/version.py"} <= names


def test_here_it_runs_under_the_nodes_own_interpreter(plan: ClusterPlan, tmp_path: Path) -> None:
    """And not under the Python that runs saf-env, which may be gone tomorrow."""
    there = beta(plan)
    own = tmp_path / "python" / "bin" / "python3.12"
    env = dataclasses.replace(plan.node("linux").environment, path=tmp_path / "env")
    for path in (own, env.python):
        path.parent.mkdir(parents=True)
    own.touch()
    env.python.symlink_to(own)
    node = dataclasses.replace(plan.node("linux"), environment=env)
    here = dataclasses.replace(there.plan.hosts["here"], ssh="", home=tmp_path / "project")
    host = dataclasses.replace(there.hosts["here"], plan=here, python=Path(sys.executable))
    there.way.answers['id -un)" "$(pwd)'] = (0, f"1000\nanna\n{tmp_path}\n")
    install(plan, Hosts({"here": host}, plan.folder, {}, "here"), [node], lambda _: None)
    folder = tmp_path / "project/.saf/clusters/local/services/linux"
    service = read((folder / "service.json").read_text(encoding="utf-8"))
    assert service.command[0] == str(own)
    assert service.node.environment.python == env.python
    unit = (tmp_path / f".config/systemd/user/{UNIT}").read_text(encoding="utf-8")
    assert f' "{own}" ' in unit
    assert sys.executable not in unit


def test_the_agent_on_the_host_knows_how_to_end_and_start_it(plan: ClusterPlan) -> None:
    there = beta(plan)
    installed(there, "linux")
    note = json.loads(there.way.files[f"{FOLDER}/service.json"])
    ctl = ["systemctl", "--user"]
    assert note["stop"] == [[*ctl, "stop", UNIT], [*ctl, "reset-failed", UNIT]]
    assert note["start"] == [[*ctl, "start", "--no-block", UNIT]]


@pytest.mark.parametrize("runs", [True, False])
def test_only_a_node_that_runs_is_watched_at_once(plan: ClusterPlan, runs: bool) -> None:
    there = beta(plan)
    if runs:
        there.running.append(Found("linux", "r", {"leader": 1}, Started("linux", "r", 1, "1")))
    installed(there, "linux")
    assert list(there.way.words("&& ctl enable")) == [UNIT, "now" if runs else "", FOLDER]


def test_a_mac_gets_an_agent(plan: ClusterPlan) -> None:
    there = beta(plan, "macos-arm64")
    installed(there, "linux")
    name = "dev.saf-env.local.linux"
    text = there.way.files[f"/home/anna b/Library/LaunchAgents/{name}.plist"]
    assert plistlib.loads(text)["Label"] == name
    note = json.loads(there.way.files[f"{FOLDER}/service.json"])
    assert note["stop"] == [["launchctl", "bootout", f"gui/1000/{name}"]]
    assert not any("systemctl" in script for script, *_ in there.way.asked)


def test_a_container_is_refused(plan: ClusterPlan) -> None:
    there = beta(plan)
    image = ImagePlan("k", "t", "b", plan.head.environment, "w")
    box = dataclasses.replace(there.plan.node("linux"), kind="container", image=image)
    with pytest.raises(UsageError, match="linux need no service: Docker starts"):
        refuse_containers([there.plan.head, box])


@pytest.mark.parametrize(
    ("script", "answer", "message", "hint"),
    [
        ("echo bare", (0, "bare"), "has nothing yet", "saf-env up linux"),
        ("echo bare", (0, "taken"), "not of this project", "saf-env service remove linux"),
        ("enable-linger", (8, "Access denied"), "at boot: Access denied", "enable-linger anna"),
        ("enable-linger", (9, ""), "no systemd user manager answers", "systemd-sysv"),
        ("enable-linger", (127, "not found"), "reboot: not found", "systemd-sysv"),
        ("&& ctl enable", (1, "Failed to connect to bus"), "Failed to connect", "systemd-sysv"),
    ],
)
def test_a_host_that_cannot_is_told_with_the_remedy(
    plan: ClusterPlan, script: str, answer: tuple[int, str], message: str, hint: str
) -> None:
    there = beta(plan)
    there.way.answers[script] = answer
    with pytest.raises(BringUpError, match=message) as caught:
        installed(there, "linux")
    assert caught.value.message.startswith("here")
    assert hint in caught.value.hint
    if script == "&& ctl enable":  # nothing is left of what was begun
        assert there.way.words("ctl disable")[1] == UNIT
    else:
        assert there.way.files == {}


def test_who_joins_is_told_how_its_node_is_started(plan: ClusterPlan) -> None:
    there = beta(plan)
    there.way.answers["echo bare"] = (0, "bare")
    here = there.hosts["here"]
    alpha = dataclasses.replace(here, asked=False)
    hosts = Hosts({"here": here, "alpha": alpha}, plan.folder, {}, "alpha")
    with pytest.raises(BringUpError) as caught:
        install(there.plan, hosts, [there.plan.node("linux")], lambda _: None)
    assert caught.value.hint.startswith("run `saf-env join linux` once")


def test_a_service_is_removed_where_there_is_one(plan: ClusterPlan) -> None:
    there = beta(plan)
    steps: list[str] = []
    nodes = [("linux", "here"), ("head", "here")]
    assert remove("local", there.hosts, nodes, steps.append) == ["linux"]
    assert steps == ["here: removing the service of linux"]
    folder = ".saf-env/local/.saf/clusters/local/services/linux"
    assert list(there.way.words("ctl disable")) == [f".config/systemd/user/{UNIT}", UNIT, folder]
    there.way.answers["grep -qF"] = (2, "")
    assert remove("local", there.hosts, nodes, steps.append) == []


def test_a_service_that_cannot_be_removed_is_told(plan: ClusterPlan) -> None:
    there = beta(plan)
    there.way.answers["ctl disable"] = (1, "Read-only file system")
    found = elsewhere("local", there.hosts)
    assert found == [("linux", "here")]
    with pytest.raises(BringUpError, match="linux cannot be removed: Read-only"):
        remove("local", there.hosts, found, lambda _: None)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("active\n", "active"),
        ("activating\n", "active"),
        ("inactive\n", "inactive"),
        ("deactivating\n", "inactive"),
        ("failed\n", "failed"),
        ("", "inactive"),
    ],
)
def test_states_of_units(plan: ClusterPlan, said: str, state: str) -> None:
    there = beta(plan)
    installed(there, "linux")
    note = there.way.files[f"{FOLDER}/service.json"].decode()
    there.way.answers |= {"cat --": (0, note), "ActiveState": (0, said)}
    (one,) = status(there.plan, there.hosts, [there.plan.node("linux")])
    assert one.as_json() == {"node": "linux", "host": "here", "state": state, "unit": UNIT}


def test_a_service_that_is_not_there_or_of_another_plan(plan: ClusterPlan) -> None:
    there = beta(plan)
    installed(there, "linux")
    note = there.way.files[f"{FOLDER}/service.json"].decode()
    node = there.plan.node("linux")
    there.way.answers["ActiveState"] = (0, "active")
    there.way.answers["cat --"] = (1, "No such file")
    assert status(there.plan, there.hosts, [node])[0].state == "absent"
    there.way.answers["cat --"] = (0, note)
    changed = dataclasses.replace(node, cpus=7)
    assert status(there.plan, there.hosts, [changed])[0].state == "outdated"
    there.way.answers["cat --"] = (0, "{}")
    assert status(there.plan, there.hosts, [node])[0].state == "outdated"


IDLE = "gui/501/x = {\n\tstate = not running\n\tlast exit code = %s\n}"
RUNS = "gui/501/x = {\n\tstate = running\n\tlast exit code = 1\n\tstate = active\n}"


@pytest.mark.parametrize(
    ("said", "given_up", "state"),
    [
        ("", False, "inactive"),
        (RUNS, False, "active"),
        (RUNS, True, "active"),
        ("x = {\n\tstate = spawn scheduled\n\tlast exit code = 1\n}", False, "active"),
        (IDLE % "0", False, "inactive"),
        (IDLE % "0", True, "failed"),
        (IDLE % "(never exited)", False, "inactive"),
        (IDLE % "78: EX_CONFIG", False, "failed"),
    ],
)
def test_states_of_agents(said: str, given_up: bool, state: str) -> None:
    assert agent_state(said, given_up=given_up) == state

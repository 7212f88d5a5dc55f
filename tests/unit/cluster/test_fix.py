"""What ``check --fix`` mends, what it leaves alone, and what it says of either."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saf_env.cluster import fix as module
from saf_env.cluster import prepare
from saf_env.cluster.fix import fix
from saf_env.cluster.project import Project
from saf_env.cluster.token import ensure_token
from saf_env.errors import BringUpError, HostUnreachableError, ToolchainError
from saf_env.plan.build import token_path
from saf_env.plan.images import image_plan
from saf_env.plan.model import ClusterPlan, ImagePlan, NodePlan
from saf_env.preflight.base import Finding, Level
from saf_env.provision import images
from saf_env.transports.base import CommandResult

BASE = "sha256:" + "1" * 64


class Made(SimpleNamespace):
    """Hosts, of which each has an engine."""

    unasked: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(engine=None)

    def give_up(self, lost: Mapping[str, HostUnreachableError]) -> None:
        """They are asked no more."""


class Fake:
    """A project in a folder, with ``running`` nodes, that writes down what is made."""

    def __init__(self, home: Path, plan: ClusterPlan) -> None:
        box = plan.node("linux")
        self.image = image_plan(box.environment, BASE, "2" * 64)
        self.box = dataclasses.replace(
            box, kind="container", fallback_reason="", image=self.image, advertise="box.local.saf"
        )
        self.head = plan.head
        self.home, self.plan = (
            home,
            dataclasses.replace(plan, home=home, nodes=(self.box, self.head)),
        )
        self.uv = self.engine = None
        self.running: list[str] = []
        self.names: tuple[bool, str] = (True, "")
        self.lines: list[str] = []
        self.built = ""
        self.made: list[tuple[str, bool]] = []
        self.fault: ToolchainError | None = None
        self.unasked: frozenset[str] = frozenset()
        self.told: str | HostUnreachableError = "ab" * 32

    def way_to_head(self) -> Any:
        """Over it comes what the head's host tells, if it does."""

        def run(argv: list[str], **_: Any) -> CommandResult:
            if isinstance(self.told, HostUnreachableError):
                raise self.told
            return CommandResult(tuple(argv), "alpha", 0, self.told, "", 0.0)

        return SimpleNamespace(host="alpha", run=run)

    def hosts(self) -> Any:
        def write(lines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
            self.lines += lines
            changed, refused = self.names
            return ["here"] if changed else [], {"here": refused} if refused else {}

        found = [SimpleNamespace(node=name) for name in self.running]
        made = Made(names=(), look=lambda _: (found, {}), write_names=write)
        made.unasked = self.unasked
        return made

    def make(self, what: Any, *_: object, rebuild: bool) -> bool:
        self.made.append((what.tag if isinstance(what, ImagePlan) else what.key, rebuild))
        if self.fault:
            raise self.fault
        return True

    def fix(self, *wrong: tuple[str, NodePlan, Level]) -> list[str]:
        """What is told while findings are mended."""
        told: list[str] = []
        found = [Finding(check, node.name, level, "wrong") for check, node, level in wrong]
        fix(cast(Project, self), self.plan.nodes, found, lambda _: None, told.append)
        return told


@pytest.fixture
def project(tmp_path: Path, plan: ClusterPlan, monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake(tmp_path, plan)
    monkeypatch.setattr(module, "ensure_environment", fake.make)
    monkeypatch.setattr(images, "ensure_image", fake.make)
    monkeypatch.setattr(images, "built", lambda *_: fake.built)
    monkeypatch.setattr(images, "prune", lambda *_: None)
    return fake


def test_what_is_not_ours_to_mend_is_left_alone_without_a_word(project: Fake) -> None:
    unlocked = dataclasses.replace(project.box, image=None)
    project.plan = dataclasses.replace(project.plan, nodes=(unlocked, project.head))
    assert (
        project.fix(
            ("disk", project.head, "fail"),
            ("token", project.head, "warn"),
            ("advertised-name", project.head, "ok"),
            ("packages-locked", project.head, "ok"),
            ("image-present", project.box, "fail"),
        )
        == []
    )
    assert not (project.home / ".saf").exists()


def test_all_of_a_fresh_clone_is_mended_and_told_before(project: Fake) -> None:
    env, tag = project.head.environment.key, project.image.tag
    told = project.fix(
        ("packages-locked", project.head, "fail"),
        ("python-build", project.head, "skip"),
        ("python-build", project.box, "skip"),
        ("advertised-name", project.head, "fail"),
        ("advertised-name", project.box, "fail"),
        ("token", project.head, "fail"),
        ("image-present", project.box, "fail"),
    )

    line = f"127.0.0.2 box.local.saf # saf-env {project.plan.folder.name}"
    assert told == [
        "mending packages-locked, advertised-name, token, image-present",
        "made the token",
        f"wrote to /etc/hosts of here, until `saf-env down`: {line}",
        f"making the image {tag}",
        f"making the environment {env} anew",
    ]
    assert project.made == [(tag, False), (env, True)]
    assert token_path(project.home, "local").exists()


def test_an_environment_that_is_not_there_at_all_is_made(project: Fake) -> None:
    told = project.fix(("python-version", project.head, "skip"))
    assert told[0] == "mending python-version"
    assert project.made == [(project.head.environment.key, True)]


def test_an_interpreter_is_not_replaced_under_a_node_of_another_environment(
    project: Fake,
) -> None:
    other = dataclasses.replace(project.box, name="other", kind="native", image=None)
    project.plan = dataclasses.replace(project.plan, nodes=(project.head, other))
    project.running = ["other"]
    told = project.fix(("python-build", project.head, "fail"))
    assert "the interpreter of head has to be made anew, and other runs by it" in told[-1]
    assert project.made == []
    project.running = []
    project.fix(("python-build", project.head, "fail"))
    assert project.made == [(project.head.environment.key, True)]


@pytest.mark.parametrize(("source", "mends"), [("managed", True), ("system", False)])
def test_the_library_of_the_system_s_python_is_not_taken_as_it_is(
    project: Fake, source: Any, mends: bool
) -> None:
    env = project.head.environment
    interpreter = dataclasses.replace(env.interpreter, source=source)
    env = dataclasses.replace(env, interpreter=interpreter)
    head = dataclasses.replace(project.head, environment=env)
    project.plan = dataclasses.replace(project.plan, nodes=(project.box, head))
    assert bool(project.fix(("python-intact", head, "fail"))) == mends
    assert bool(project.made) == mends


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((True, ""), "wrote to /etc/hosts"),
        ((False, "Permission denied"), "/etc/hosts of here cannot be written: Permission denied"),
        ((False, ""), "the cluster's lines are in /etc/hosts"),
    ],
)
@pytest.mark.parametrize("level", ["fail", "warn"])
def test_names(project: Fake, names: tuple[bool, str], told: str, level: Level) -> None:
    project.names = names
    assert project.fix(("advertised-name", project.head, level))[1].startswith(told)


def test_an_image_with_other_files_is_built_from_nothing(project: Fake) -> None:
    project.built = "sha256:1"
    told = project.fix(("packages-intact", project.box, "fail"))
    assert told[1] == f"making the image {project.image.tag} anew"
    assert project.made == [(project.image.tag, True)]


@pytest.mark.parametrize(("name", "word"), [("head", "environment"), ("linux", "image")])
def test_what_a_node_runs_in_is_not_replaced(project: Fake, name: str, word: str) -> None:
    project.built, project.running = "sha256:1", ["head", "linux"]
    told = project.fix(("packages-intact", project.plan.node(name), "fail"))
    assert re.search(f"the {word} .* and {name} runs in it; run `saf-env down`", told[-1])
    assert project.made == []


def test_an_image_that_is_gone_is_built_under_a_running_container(project: Fake) -> None:
    project.running = ["linux"]
    project.fix(("image-present", project.box, "fail"))
    assert project.made == [(project.image.tag, False)]


def test_what_cannot_be_made_is_told_and_the_rest_goes_on(project: Fake) -> None:
    project.fault = ToolchainError("it cannot be pulled", hint="make one")
    told = project.fix(
        ("image-present", project.box, "fail"), ("packages-locked", project.head, "fail")
    )
    assert len(project.made) == 2
    assert told.count("it cannot be pulled; make one") == 2


@pytest.mark.parametrize("running", [False, True])
def test_an_empty_token(project: Fake, running: bool) -> None:
    ensure_token(project.home, "local")
    path = token_path(project.home, "local")
    path.write_text("")
    project.running = ["head"] if running else []

    told = project.fix(("token", project.head, "fail"))[1]

    assert "it is empty" in told
    assert ("left the token" in told) is running
    assert (path.read_text() == "") is running


OFF = HostUnreachableError("alpha: it is off", hint="turn it on")


@pytest.mark.parametrize("running", [False, True])
def test_who_may_read_the_token_is_mended_where_nobody_else_is_needed(
    project: Fake, running: bool
) -> None:
    """On a host that has joined, and whose head's is away."""
    ensure_token(project.home, "local")
    path = token_path(project.home, "local")
    text = path.read_text()
    path.chmod(0o644)
    project.unasked, project.told = frozenset({"alpha"}), OFF
    project.running = ["linux"] if running else []

    told = project.fix(("token", project.head, "fail"))

    assert told[1:] == ["made the token readable by you only: its mode was 0644"]
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [None, "", "short"])
def test_a_token_of_no_use_is_fetched_where_it_is_not_made(project: Fake, text: str | None) -> None:
    path = token_path(project.home, "local")
    project.unasked, project.told = frozenset({"alpha"}), OFF
    if text is not None:
        ensure_token(project.home, "local")
        path.write_text(text)
        path.chmod(0o644)

    told = project.fix(("token", project.head, "fail"))
    assert "this host has no token of cluster local, and alpha: it is off" in told[-1]
    assert "bring" in told[-1]
    assert len(told) == (2 if text is None else 3), "its mode was mended"
    project.told = "ab" * 32
    assert project.fix(("token", project.head, "fail"))[1:] == ["fetched the token"]
    assert path.read_text() == "ab" * 32


@pytest.fixture
def without_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's host, alpha, cannot be reached, so its lock cannot be held."""

    @contextlib.contextmanager
    def held(*_: object) -> Iterator[dict[str, HostUnreachableError]]:
        yield {"alpha": OFF}

    monkeypatch.setattr(module, "hold", held)


@pytest.mark.usefixtures("without_alpha")
def test_what_is_wrong_here_is_mended_without_the_heads_host(project: Fake) -> None:
    ensure_token(project.home, "local")
    token_path(project.home, "local").chmod(0o644)

    told = project.fix(("token", project.head, "fail"), ("packages-locked", project.head, "fail"))

    assert told[1:] == [
        "going on without alpha, which cannot be asked: alpha: it is off",
        "made the token readable by you only: its mode was 0644",
        f"making the environment {project.head.environment.key} anew",
    ]


@pytest.mark.usefixtures("without_alpha")
@pytest.mark.parametrize("text", [None, ""])
def test_no_other_token_is_made_while_nobody_knows_what_runs_with_it(
    project: Fake, text: str | None
) -> None:
    path = token_path(project.home, "local")
    if text is not None:
        ensure_token(project.home, "local")
        path.write_text(text)

    told = project.fix(("token", project.head, "fail"), ("packages-locked", project.head, "fail"))

    assert told[1] == "going on without alpha, which cannot be asked: alpha: it is off"
    assert told[2].startswith("made no token: nodes may" if text is None else "left the token")
    assert told[3:] == [f"making the environment {project.head.environment.key} anew"]
    assert (path.read_text() if path.exists() else None) == text


def test_a_lost_token_is_not_replaced_under_nodes_that_run(project: Fake) -> None:
    project.running = ["head"]
    with pytest.raises(BringUpError, match="is gone"):
        prepare.make_token(cast(Project, project))
    assert not token_path(project.home, "local").exists()


def test_nothing_is_done_on_a_host_whose_key_is_not_trusted(project: Fake) -> None:
    assert (
        project.fix(
            ("ssh-host-key", project.box, "fail"),
            ("image-present", project.box, "fail"),
            ("packages-locked", project.box, "skip"),
        )
        == []
    )
    assert project.made == []

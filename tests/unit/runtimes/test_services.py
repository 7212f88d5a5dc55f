"""What a service manager is given: round trips through the rules by which it is read."""

from __future__ import annotations

import plistlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saf_env.errors import UsageError
from saf_env.plan.model import ClusterPlan
from saf_env.runtimes.services import Service, agent, label, note, read, unit, unit_name

# What a path of a user may have in it; systemd and launchd have words for some of it.
NAMES = st.text(
    st.one_of(st.sampled_from("%$\"'\\ ;#~{}é"), st.characters(exclude_categories=("C", "Z"))),
    min_size=1,
).filter(lambda text: text.strip() and "/" not in text and text.isprintable())

# The value of a fixture is frozen: all examples can have the same.
SAME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def service(plan: ClusterPlan) -> Service:
    folder = Path("/home/anna b/.saf/clusters/local/services/linux")
    return Service(
        cluster=plan.name,
        host="here",
        address=plan.address,
        digest="0123456789abcdef",
        temp=plan.folder,
        token=folder.parents[1] / "token",
        folder=folder,
        python=Path("/home/anna b/.saf/tool/bin/python"),
        node=plan.node("linux"),
    )


def values(text: str) -> dict[str, list[str]]:
    """The values of a unit by key, as they stand there."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("["):
            found.setdefault(key, []).append(value)
    return found


def words(text: str) -> list[str]:
    """The words of a command as systemd takes them apart: quotes, backslashes, specifiers."""
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert " ".join(f'"{word}"' for word in quoted) == text, "nothing is outside of the quotes"
    bare = [re.sub(r"\\(.)", r"\1", word) for word in quoted]
    assert all(re.fullmatch("([^%]|%%)*", word) for word in bare), "no specifier is left"
    return [word.replace("%%", "%") for word in bare]


def moved(service: Service, name: str) -> Service:
    folder = Path("/") / name
    python, token = folder / "bin" / "python", folder / "token"
    return replace(service, folder=folder / "services", python=python, token=token)


@SAME
@given(name=NAMES)
def test_every_path_comes_through_a_unit(name: str, service: Service) -> None:
    one = moved(service, name)
    said = values(unit(one))
    first, *others = words(said["ExecStart"][0])
    # With the colon no word is taken for a variable, and systemd does not see it as part of it.
    assert (first, *others[:2]) == (":/bin/sh", "-c", 'exec "$0" "$@"')
    assert tuple(others[2:]) == one.command
    assert said["StandardOutput"] == said["StandardError"]
    assert said["StandardOutput"][0].replace("%%", "%") == f"append:{one.log}"


@SAME
@given(name=NAMES)
def test_every_path_comes_through_a_property_list(name: str, service: Service) -> None:
    one = moved(service, name)
    said = plistlib.loads(agent(one, Path("/Users/anna")))
    assert said["ProgramArguments"] == list(one.command)
    assert said["StandardOutPath"] == said["StandardErrorPath"] == str(one.log)


@SAME
@given(name=NAMES)
def test_a_note_is_read_as_it_was_written(name: str, service: Service) -> None:
    one = moved(service, name)
    lock = replace(one.node.environment.lock, text="")
    environment = replace(one.node.environment, lock=lock, path=Path("/") / name)
    one = replace(one, node=replace(one.node, environment=environment, groups=("a", "b")))
    assert read(note(one, [["stop", name]], [["start", name]])) == one


def test_what_is_no_note_is_refused() -> None:
    for text in ("", "[]", "{}", '{"schema": 2}'):
        with pytest.raises(ValueError):
            read(text)


@pytest.mark.parametrize("bad", ["a\nExecStartPre=b", "a\tb", "a\x00b", "a\u2028b"])
def test_a_path_that_would_be_a_line_of_its_own_is_refused(service: Service, bad: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a systemd unit"):
        unit(moved(service, bad))


def test_a_unit_is_tried_again_and_not_for_ever(service: Service) -> None:
    said = values(unit(service))
    assert said["Restart"] == ["on-failure"]
    assert said["RestartPreventExitStatus"] == ["78"]
    assert said["StartLimitBurst"] == ["5"]
    assert said["WantedBy"] == ["default.target"]
    assert said["KillMode"] == ["process"]


def test_an_agent_is_started_at_login_and_again_when_it_failed(service: Service) -> None:
    said = plistlib.loads(agent(service, Path("/Users/anna")))
    assert said["RunAtLoad"] is True
    assert said["KeepAlive"] == {"SuccessfulExit": False}
    assert said["WorkingDirectory"] == "/Users/anna"
    assert said["Label"] == label("local", "linux") == "dev.saf-env.local.linux"


def test_names_tell_cluster_and_node() -> None:
    assert unit_name("local", "linux") == "saf-env-local-linux.service"


def test_the_token_is_there_by_its_path_only(service: Service) -> None:
    text = note(service, [], [])
    assert str(service.token) in text
    assert "RAY_AUTH_TOKEN_PATH" in text
    assert 'RAY_AUTH_TOKEN"' not in text
    assert "--hash" not in text, "the lock's text is left out"

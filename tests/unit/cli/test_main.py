"""The command line without a cluster: help, errors and their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from saf_env import __version__
from saf_env.cli import main
from saf_env.cli.parser import make_parser

ROOT = Path(__file__).parents[3]
COMMANDS = ["lock", "check", "up", "down", "status", "plan", "logs", "test", "completion"]
COMMANDS += ["service"]


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here must come to its verdict before anything is started."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test started a process")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


def run(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), *arguments])


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in text
    assert "4 preflight" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert "example:\n" in text
    assert f"saf-env {command}" in text.split("example:\n")[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"saf-env {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    before = set(sys.modules)
    make_parser()
    heavy = {"rich", "jsonschema", "packaging", "dataclasses", "filelock", "asyncio"}
    assert not heavy & (set(sys.modules) - before)


@pytest.mark.parametrize("arguments", [["nonsense"], [], ["up", "--nonsense"], ["down", "--fi"]])
def test_a_wrong_command_line_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("option", ["--python-source=managed", "--python-downloads=none.json"])
def test_a_check_of_the_lock_takes_no_wishes(tmp_path: Path, option: str) -> None:
    (tmp_path / "cluster.toml").write_bytes((ROOT / "cluster.toml").read_bytes())
    assert run(tmp_path, "lock", "--check", option) == 2


def test_a_missing_cluster_file_is_2_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "plan") == 2
    told = capsys.readouterr().err
    assert "there is no cluster file" in told
    assert "what to do:" in told


def test_a_missing_project_folder_is_2(tmp_path: Path) -> None:
    assert run(tmp_path / "none", "status") == 2


@pytest.mark.parametrize("command", ["lock", "check", "up", "plan", "status", "logs", "test"])
def test_a_wrong_cluster_file_is_2_in_every_command(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_text('[cluster]\nname = "../x"\n', encoding="utf-8")
    assert run(tmp_path, command) == 2
    assert "cluster.name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_missing_lock_is_3_with_a_remedy(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_bytes((ROOT / "cluster.toml").read_bytes())
    assert run(tmp_path, command) == 3
    assert "saf-env lock" in capsys.readouterr().err


def test_an_unknown_node_is_2_and_the_nearest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_bytes((ROOT / "cluster.toml").read_bytes())
    assert run(tmp_path, "down", "haed") == 2
    told = capsys.readouterr().err
    assert 'no node "haed"' in told
    assert "did you mean 'head'?" in told


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--debug", "plan") == 2
    assert "Traceback" in capsys.readouterr().err
    assert run(tmp_path, "plan") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_1_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saf_env.cli.commands import plan

    def broken(*_: object) -> int:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(plan, "run", broken)
    assert run(tmp_path, "plan") == 1
    told = capsys.readouterr().err
    assert "a bug in saf-env: ZeroDivisionError: oh" in told
    assert "--debug" in told


def test_an_interrupt_is_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saf_env.cli.commands import plan

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "run", interrupted)
    assert run(tmp_path, "plan") == 130


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "completion", shell) == 0
    text = capsys.readouterr().out
    assert "status" in text
    assert "upgrade" in text or "--upgrade" in text


def test_nothing_that_a_terminal_acts_on_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_text('"\\u001b[31m" = 1\n', encoding="utf-8")
    assert run(tmp_path, "plan") == 2
    assert "\x1b" not in capsys.readouterr().err

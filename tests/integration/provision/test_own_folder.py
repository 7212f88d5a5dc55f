"""``.saf`` in a project of its own: settings there do not reach our uv, our files not its git."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from saf_env.cluster.token import ensure_token
from saf_env.lock.downloads import from_uv
from saf_env.lock.model import Lock
from saf_env.lock.proof import proof
from saf_env.lock.resolve import resolve
from saf_env.platforms import this_platform
from saf_env.spec.parse import parse
from saf_env.uv import own_folder

PROJECT = '[project]\nname = "theirs"\nversion = "0"\n[tool.uv]\n'
SETTINGS = {
    "version": ("pyproject.toml", f'{PROJECT}required-version = "==0.8.0"\n'),
    "override": ("pyproject.toml", f'{PROJECT}override-dependencies = ["idna==2.0"]\n'),
    "newer": ("pyproject.toml", f'{PROJECT}exclude-newer = "2015-01-01T00:00:00Z"\n'),
    "member": (
        "pyproject.toml",
        f'{PROJECT}exclude-newer = "2015-01-01T00:00:00Z"\nworkspace = {{ members = ["**"] }}\n',
    ),
    "source": ("uv.toml", "no-binary = true\n"),
    "index": ("uv.toml", '[[index]]\nurl = "http://127.0.0.1:9/simple"\ndefault = true\n'),
}
CLUSTER = """
[cluster]
name = "c"
[python]
version = "3.12"
[environment]
requires = ["idna==3.10"]
[hosts.here]
[[nodes]]
name = "only"
host = "here"
kind = "native"
role = "head"
"""


@pytest.fixture(params=SETTINGS)
def theirs(workshop: Any, request: pytest.FixtureRequest) -> Any:
    """A workshop in the folder of a project that has settings of its own for uv."""
    name, text = SETTINGS[request.param]
    (workshop.home / name).write_text(text, encoding="utf-8")
    return workshop


def test_an_environment_is_made_as_locked(theirs: Any) -> None:
    env = theirs.plan()
    theirs.make(env)
    assert theirs.intact(env)


def test_a_cluster_is_locked_as_its_own_file_says(theirs: Any) -> None:
    spec = parse(CLUSTER, trusted=True)
    pins = resolve(spec, "3.12.1", theirs.uv, keep={}, upgrade_packages=(), notify=print)
    assert [(pin.name, pin.version) for pin in pins["base"]] == [("idna", "3.10")]
    here = this_platform()
    assert here
    assert from_uv(theirs.uv, [here.name])


def test_a_lock_is_proven_with_nothing_but_the_lock(theirs: Any) -> None:
    here, env = this_platform(), theirs.plan()
    assert here
    lock = Lock("c", "", "", env.interpreter.version, {"base": env.lock}, {}, {})
    assert proof(lock, theirs.uv, "base", here.name) == 2


def test_the_users_own_index_is_asked(workshop: Any, tmp_path: Path) -> None:
    settings = tmp_path / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(SETTINGS["index"][1], encoding="utf-8")
    uv = workshop.uv_with(tmp_path / "empty", XDG_CONFIG_HOME=str(tmp_path / "config"))
    said = uv.run(["pip", "install", "--dry-run", "--target", "t", "idna"])
    assert "http://127.0.0.1:9/simple" in said.stderr


def test_git_adds_nothing_of_it(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    own_folder(tmp_path)
    ensure_token(tmp_path, "c")
    (tmp_path / "cluster.toml").write_text(CLUSTER, encoding="utf-8")
    git("add", "--all")
    assert git("ls-files").split() == ["cluster.toml"]

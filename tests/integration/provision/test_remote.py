"""What is asked of another host by ``sh``, and what is made there, on a real one: this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest

from saf_env import probe
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan, HostPlan
from saf_env.platforms import this_platform
from saf_env.provision.environments import marker_of
from saf_env.provision.remote import Provisioner, unready
from saf_env.provision.survey import refusals, survey
from saf_env.provision.wheels import fetch_wheels
from saf_env.transports.base import CommandResult, FileTransport
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, pinned_version


def host(home: Path) -> HostPlan:
    here = this_platform()
    assert here is not None
    return HostPlan("beta", "127.0.0.1", here.name, "beta", None, home)


def environment(folder: Path, name: str) -> EnvironmentPlan:
    interpreter = Interpreter("linux-x86_64", "3.12.1", "system", "b", "", "c" * 64)
    lock = EnvironmentLock(name, (), "", "d" * 64)
    return EnvironmentPlan(name, lock, interpreter, {}, folder / name, "0.13.9")


def lacking(*environments: EnvironmentPlan) -> list[str]:
    way: Any = LocalTransport("beta")
    return [env.key for env in unready(host(Path()), cast(FileTransport, way), environments)]


def test_each_environment_is_told_from_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "a b 'c'"
    one, two, three = (environment(folder, name) for name in ("one", "two", "three"))
    assert lacking(one, two, three) == ["one", "two", "three"]
    two.path.mkdir(parents=True)
    (two.path / probe.MARKER).write_text(json.dumps(marker_of(two)), encoding="utf-8")
    assert lacking(one, two, three) == ["one", "three"]
    assert lacking(two, one) == ["one"]


def test_this_machine_is_fit(tmp_path: Path) -> None:
    home = tmp_path / "a b"
    seen = survey(host(home), LocalTransport("beta"))
    assert refusals(host(home), seen, roomy=False, mlx=False) == []
    assert seen.free
    assert (home / ".saf").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen = survey(host(tmp_path / "file" / "x"), LocalTransport("beta"))
    assert "Not a directory" in seen.refused


# A whole host, which reaches no package index

NOTHING = ["beta: installing base"]
"""What is told where all is there."""


class Beside(LocalTransport):
    """A way to this machine that also carries files."""

    def put(self, source: Path | bytes, target: str, *, mode: int = 0o600, timeout: float) -> None:
        file = Path(target)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        file.chmod(mode)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str | Iterable[bytes] = "",
        cwd: str | None = None,
    ) -> CommandResult:
        if isinstance(stdin, str):
            return super().run(argv, env=env, timeout=timeout, stdin=stdin, cwd=cwd)
        done = subprocess.run(
            argv,
            input=b"".join(stdin),
            env=dict(env),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        return CommandResult(tuple(argv), self.host, done.returncode, out, err, 0.0)


@dataclass
class Made:
    """A host, what it is to have, and what was told of making it."""

    home: Path
    env: EnvironmentPlan
    uv: Uv
    told: list[str] = field(default_factory=list)

    def make(self, *, rebuild: bool = False) -> list[str]:
        """Make it what it has to be; returns what was told."""
        self.told.clear()
        way: Any = Beside("beta")
        home = PurePosixPath(self.home)
        one = Provisioner(host(self.home), home, way, self.uv, self.told.append)
        one.make(self.env.interpreter, pinned_version(), [self.env], rebuild=rebuild)
        return self.told

    @property
    def agent(self) -> Path:
        """The link to the interpreter."""
        return self.home / ".saf" / "python" / "agent"

    @property
    def wheels(self) -> list[Path]:
        """Those that it was sent."""
        return sorted((self.home / ".saf" / "cache" / "wheels").iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, package_cache: Path) -> Made:
    from tests.integration.provision.conftest import Workshop

    workshop = Workshop(tmp_path_factory.mktemp("a b é"), package_cache)
    env = workshop.plan()
    own = workshop.home / ".saf" / "uv" / pinned_version() / env.interpreter.platform
    own.mkdir(parents=True)
    shutil.copy(workshop.uv.binary, own / "uv")
    home = tmp_path_factory.mktemp("c d ü")
    fetch_wheels(env, workshop.uv, lambda _: None)
    nowhere = workshop.uv_with(UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_FIND_LINKS="")
    (home / ".saf").mkdir()
    found = Made(home, replace(env, path=home / ".saf" / "envs" / env.key), nowhere)
    told = found.make()
    assert any("sending 2 packages" in line for line in told), told
    return found


def test_environments_are_made_of_the_one_interpreter_that_is_there(made: Made) -> None:
    (folder,) = (f for f in made.agent.parent.iterdir() if f.is_dir())
    assert made.agent.resolve().is_relative_to(folder)
    assert made.env.python.resolve() == made.agent.resolve()
    assert made.make() == NOTHING


def test_an_interpreter_with_a_changed_file_is_made_anew(made: Made) -> None:
    (file,) = made.agent.resolve().parents[1].glob("lib/python3.*/this.py")
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}# edited\n", encoding="utf-8")
    assert any("installing CPython" in line for line in made.make())
    assert file.read_text(encoding="utf-8") == text
    assert made.make() == NOTHING


def test_an_interpreter_that_was_not_finished_is_made_anew(made: Made) -> None:
    (marker,) = made.agent.parent.glob(f"*/{probe.MARKER}")
    marker.unlink()
    assert any("installing CPython" in line for line in made.make())


def test_a_host_that_joined_by_itself_is_looked_at_by_its_interpreter_again(made: Made) -> None:
    there = os.readlink(made.agent)
    made.agent.unlink()
    made.agent.symlink_to("/usr/bin/env")
    assert made.make() == NOTHING
    assert os.readlink(made.agent) == there


def test_wheels_that_are_there_are_not_sent_again_and_damaged_ones_are(made: Made) -> None:
    shutil.rmtree(made.home / ".saf" / "cache" / "uv")
    told = made.make(rebuild=True)
    assert any("sending 0 packages" in line for line in told), told
    good = made.wheels[0].read_bytes()
    made.wheels[0].write_bytes(good[:-1] + b"?")
    shutil.rmtree(made.home / ".saf" / "cache" / "uv")
    told = made.make(rebuild=True)
    assert any("sending 1 packages" in line for line in told), told
    assert made.wheels[0].read_bytes() == good
    assert len(made.wheels) == 2

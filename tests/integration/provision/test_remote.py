"""What is asked of another host by ``sh``, asked of a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from saf_env import probe
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan, HostPlan
from saf_env.platforms import this_platform
from saf_env.provision.environments import marker_of
from saf_env.provision.remote import unready
from saf_env.provision.survey import refusals, survey
from saf_env.transports.base import FileTransport
from saf_env.transports.local import LocalTransport


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

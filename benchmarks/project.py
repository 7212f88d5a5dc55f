"""The benchmarks' own project: a folder in .saf with a cluster of its own, removed afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import timed
from saf_env.plan.build import folder_of
from saf_env.spec.model import ClusterSpec
from saf_env.spec.parse import parse
from saf_env.uv import cache_root

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".saf" / "bench"
CLUSTER = "bench"
PORT = 26000
PLAIN_PORT = 26500
"""First port of the plain Ray, away from every block of ours."""

BIN = Path(sys.executable).parent
SAF_ENV = BIN / "saf-env"


@dataclass(frozen=True)
class Project:
    """A project folder; ``saf-env`` is called in it as a user calls it."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        """The variables of the calls: the user's, the checkout's cache, and the pinned uv."""
        return {
            **os.environ,
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "SAF_ENV_CACHE": str(cache_root(ROOT).absolute()),
        }

    def saf_env(self, *arguments: str, **variables: str) -> float:
        """How long ``saf-env ARGUMENTS`` takes, in seconds; ``variables`` beside :attr:`env`."""
        return timed([str(SAF_ENV), *arguments], env=self.env | variables, cwd=self.home)

    def output(self, *arguments: str) -> str:
        """What ``saf-env ARGUMENTS`` prints."""
        argv = [str(SAF_ENV), *arguments]
        return subprocess.run(
            argv,
            env=self.env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def write(self, requirement: str = "") -> ClusterSpec:
        """Write its cluster file: the repository's own with another name and ports, all native.

        Args:
            requirement: one more requirement of every node.
        """
        text = (ROOT / "cluster.toml").read_text(encoding="utf-8")
        own = parse(text)
        text = text.replace(f'name = "{own.name}"', f'name = "{CLUSTER}"', 1)
        text = text.replace(f"port = {own.port}", f"port = {PORT}", 1)
        text = text.replace('kind = "container"\nfallback = "native"', 'kind = "native"')
        if requirement:
            text = text.replace("requires = [", f'requires = ["{requirement}", ', 1)
        (self.home / "cluster.toml").write_text(text, encoding="utf-8")
        return parse(text)


@contextmanager
def project(name: str) -> Iterator[Project]:
    """A project in ``.saf/bench/NAME``; whatever happens, nothing of it runs or lies afterwards."""
    made = Project(FOLDER / name)
    _remove(made)  # of a run that was killed
    made.home.mkdir(parents=True)
    try:
        made.write()
        yield made
    finally:
        _remove(made)


def _remove(made: Project) -> None:
    if (made.home / ".saf" / "clusters").exists():
        made.saf_env("down")
    shutil.rmtree(made.home, ignore_errors=True)
    shutil.rmtree(folder_of(str(made.home.resolve()), CLUSTER), ignore_errors=True)

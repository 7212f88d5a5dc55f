"""A workshop for environments: real uv, real packages, two small ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan
from saf_env.platforms import this_platform
from saf_env.provision import record
from saf_env.provision.environments import ensure_environment, ready
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, find_uv, pinned_version

PROJECT = Path(__file__).parents[3]
LOCKED = """\
idna==3.10 \\
    --hash=sha256:12f65c9b470abda6dc35cf8e63cc574b1c52b11df2c86030af0ac09b01b13ea9 \\
    --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3
six==1.17.0 \\
    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \\
    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81
"""

# A child process that makes an environment, and may kill itself on the way: at the n-th time that
# it is about to start a program, make a folder or rename something.
CHILD = """
import os, pickle, signal, sys
env, uv, rebuild, step = pickle.load(sys.stdin.buffer)
from saf_env.provision.environments import ensure_environment
from saf_env.errors import SafEnvError
def hook(event, arguments):
    global step
    if event in ("subprocess.Popen", "os.mkdir", "os.rename"):
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
if step:
    sys.addaudithook(hook)
try:
    ensure_environment(env, uv, lambda text: print(text, flush=True), rebuild=rebuild)
except SafEnvError as error:
    print(error.message, error.hint, sep="\\n", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass(frozen=True)
class Workshop:
    """One project folder, one cache, and what tests do with them."""

    home: Path
    cache: Path

    @property
    def uv(self) -> Uv:
        """The pinned uv with this cache."""
        return self.uv_with()

    def uv_with(self, cache: Path | None = None, **variables: str) -> Uv:
        """The pinned uv with another cache or further variables of the user."""
        environ = {**os.environ, "SAF_ENV_CACHE": str(cache or self.cache), **variables}
        return Uv(LocalTransport(), find_uv(PROJECT).binary, self.home, environ)

    def plan(self, text: str = LOCKED, **packages: str) -> EnvironmentPlan:
        """The plan of an environment with ``packages``, locked by ``text``."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        key = f"base-test-{digest[:12]}"
        return EnvironmentPlan(
            key=key,
            lock=EnvironmentLock("base", (), text, digest),
            interpreter=self.interpreter(),
            packages=packages or {"idna": "3.10", "six": "1.17.0"},
            path=self.home / ".saf" / "envs" / key,
            uv_version=pinned_version(),
        )

    def interpreter(self) -> Interpreter:
        """The one that runs the tests, as a lock has it."""
        here = this_platform()
        assert here is not None
        seen = probe.interpreter()
        return Interpreter(here.name, seen["version"], "system", seen["build"], "", seen["digest"])

    def make(self, env: EnvironmentPlan, uv: Uv | None = None) -> list[str]:
        """Make ``env``; returns the lines that the user would see."""
        said: list[str] = []
        assert ensure_environment(env, uv or self.uv, said.append)
        return said

    def facts(self, env: EnvironmentPlan, *, deep: bool = False) -> Mapping[str, Any]:
        """What the probe says of the environment."""
        wanted = ["files", "packages", "isolation", "environment"]
        result = subprocess.run(
            [env.python, "-I", "-S", probe.__file__],
            input=json.dumps({"only": wanted, "deep": deep}),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        answer = json.loads(result.stdout)
        assert answer["unknown"] == {}
        found: Mapping[str, Any] = answer["facts"]
        return found

    def intact(self, env: EnvironmentPlan) -> bool:
        """Whether ``env`` is ready and every file is as promised, the hard way."""
        if not ready(env):
            return False
        files = self.facts(env, deep=True)["files"]
        return all(files[kind] == [0, []] for kind in ("changed", "missing", "foreign"))

    def leftovers(self, env: EnvironmentPlan) -> list[str]:
        """What lies beside the environment, lock files left out."""
        names = sorted(path.name for path in env.path.parent.iterdir())
        return [name for name in names if name != env.key and not name.endswith(".lock")]

    def site(self, env: EnvironmentPlan) -> Path:
        """Its folder of packages."""
        return record.site_packages(env.path)

    def child(
        self, env: EnvironmentPlan, *prefix: str, rebuild: bool = False, step: int = 0
    ) -> subprocess.Popen[bytes]:
        """Start making ``env`` in a process of its own; see :data:`CHILD`."""
        uv = dataclasses.replace(self.uv, environ=dict(self.uv.environ))
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", CHILD],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps((env, uv, rebuild, step)))
        process.stdin.close()
        process.stdin = None
        return process


@pytest.fixture(scope="session")
def package_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workshop(tmp_path: Path, package_cache: Path) -> Workshop:
    home = tmp_path / "a b é"
    (home / ".saf").mkdir(parents=True)
    return Workshop(home, package_cache)

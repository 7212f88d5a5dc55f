"""A yard for builds of images by the real engine, shared by their tests."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from saf_env import probe
from saf_env.engine import Engine
from saf_env.errors import ToolchainError
from saf_env.lock.images import LOCAL_BASE
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.images import image_plan
from saf_env.plan.model import EnvironmentPlan, ImagePlan
from saf_env.platforms import this_platform
from saf_env.provision.images import ensure_image, image_id
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, find_uv, pinned_version, pinned_wheels
from tests.hosts.machines import yard as machines

if TYPE_CHECKING:
    from tests.hosts.several import Made

PROJECT = Path(__file__).parents[2]
LOCKED = """\
idna==3.10 \\
    --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3
six==1.17.0 \\
    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274
"""

# Makes an image in a process of its own, which the test kills.
CHILD = """
import pickle, sys
from saf_env.provision.images import ensure_image
image, uv, engine = pickle.load(sys.stdin.buffer)
ensure_image(image, "images", uv, engine, lambda text: print(text, flush=True))
"""

# Python's own parts that need libraries which the base image does not have, or not in this version.
TRIAL = """
import bz2, ctypes, lzma, os, sqlite3, ssl, sys, zoneinfo
assert lzma.decompress(lzma.compress(b"x")) == bz2.decompress(bz2.compress(b"x")) == b"x"
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
assert ctypes.CDLL(None).getpid() == os.getpid()
try:
    zoneinfo.ZoneInfo("Europe/Berlin")
    assert os.path.isdir("/usr/share/zoneinfo")
except zoneinfo.ZoneInfoNotFoundError:
    assert not os.path.isdir("/usr/share/zoneinfo")
import idna, six
with open("/proc/self/maps") as maps:
    print(*sorted({line.split()[-1] for line in maps if ".so" in line}), sep="\\n")
"""


def docker(*arguments: str, data: str = "", ok: bool = True, timeout: float = 120) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        input=data,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Yard:
    """A project folder, and the engine of this machine."""

    home: Path
    base: str
    engine: Engine

    def uv(self, **variables: str) -> Uv:
        environ = {**os.environ, "SAF_ENV_CACHE": str(self.home / "cache"), **variables}
        return Uv(LocalTransport(), find_uv(PROJECT).binary, self.home, environ)

    def plan(self, text: str = LOCKED, base: str = "", **packages: str) -> ImagePlan:
        here = this_platform()
        assert here is not None
        seen = probe.interpreter()
        digest = hashlib.sha256(text.encode()).hexdigest()
        environment = EnvironmentPlan(
            key=f"test-{here.name}-{digest[:12]}",
            lock=EnvironmentLock("test", (), text, digest),
            interpreter=Interpreter(
                here.name, seen["version"], "system", seen["build"], "", seen["digest"]
            ),
            packages=packages or {"idna": "3.10", "six": "1.17.0"},
            path=self.home / ".saf" / "envs" / "test",
            uv_version=pinned_version(),
        )
        return image_plan(environment, base or self.base, pinned_wheels()[here.name])

    def make(self, image: ImagePlan, *, rebuild: bool = False, **variables: str) -> str:
        """Build it; returns its id."""
        return ensure_image(
            image, "images", self.uv(**variables), self.engine, lambda _: None, rebuild=rebuild
        )

    def refused(self, image: ImagePlan, **variables: str) -> ToolchainError:
        """What is said when it cannot be built; nothing of it may be left in the engine."""
        with pytest.raises(ToolchainError) as caught:
            self.make(image, rebuild=False, **variables)
        assert image_id(image.tag, self.engine) is None
        return caught.value


@pytest.fixture(scope="session", autouse=True)
def an_engine() -> None:
    """Nothing here can run without; in CI, a skip is a failure."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("these tests look into containers from outside: as root, on Linux")
    if not Engine(LocalTransport()).answers():
        pytest.skip("no Docker engine answers: run `make engine base-image` (Debian, as root)")


@pytest.fixture(scope="session")
def cluster_images() -> Iterator[set[str]]:
    """The images of clusters on this machine, which several modules use; gone after the last."""
    made: set[str] = set()
    yield made
    docker("image", "rm", *made)


@pytest.fixture(scope="module")
def machine_yard() -> Iterator[machines.Yard]:
    """A network for other machines, without any yet; gone with all of them after the module."""
    if reason := machines.why_not():
        pytest.skip(reason)
    with machines.yard() as made:
        yield made


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The cluster of three hosts that two modules use, one after the other."""
    from tests.hosts.several import made  # which needs what this file has

    if reason := machines.why_not():
        pytest.skip(reason)
    with made(tmp_path_factory.mktemp("several")) as found:
        yield found


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    engine = Engine(LocalTransport())
    base = engine.image_id(LOCAL_BASE)
    assert base, f"no engine, or no {LOCAL_BASE}: make engine base-image"
    before = set(docker("images", "--quiet", "--no-trunc", "--all").split())
    yield Yard(tmp_path_factory.mktemp("a b, é"), base, engine)
    made = set(
        docker(
            "images", "--quiet", "--no-trunc", "--filter", "label=saf-env.cluster=images"
        ).split()
    )
    for image in made - before:
        docker("image", "rm", "--force", image)


@pytest.fixture(scope="session")
def image(yard: Yard) -> ImagePlan:
    """Built once for the tests that look at it."""
    plan = yard.plan()
    yard.make(plan)
    return plan


def in_container(image: ImagePlan, *command: str, data: str = "", options: str = "") -> str:
    """Run a command in a container that is locked down as those of nodes are."""
    hard = "run --rm --interactive --read-only --tmpfs /tmp --cap-drop ALL --network none"
    return docker(*hard.split(), *options.split(), image.tag, *command, data=data)


def tree(reference: str) -> dict[str, tuple[Any, ...]]:
    """Mode, owner, kind, link and content of every file of an image; and the time, last."""
    container = docker("create", reference)
    with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
        assert export.stdout is not None
        found = {}
        with tarfile.open(fileobj=export.stdout, mode="r|") as tar:
            for m in tar:
                file = tar.extractfile(m) if m.isfile() else None
                digest = hashlib.sha256(file.read()).hexdigest() if file else ""
                found[m.name] = (m.mode, m.uid, m.gid, m.type, m.linkname, digest, m.mtime)
    docker("rm", container)
    return found


# What an image is


def wheel(folder: Path, content: str = "value = 1\n", promised: str = "") -> str:
    """A tiny wheel in ``folder``; returns the requirement that locks it."""
    digest = hashlib.sha256((promised or content).encode()).digest()
    line = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    info = "saf_env_tiny-1.0.dist-info"
    files = {
        "saf_env_tiny.py": content,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: saf-env-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"saf_env_tiny.py,sha256={line},{len(content)}"]
    for name in list(files)[1:]:
        digest = hashlib.sha256(files[name].encode()).digest()
        coded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record.append(f"{name},sha256={coded},{len(files[name])}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(exist_ok=True)
    path = folder / "saf_env_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"saf-env-tiny==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the files of ``folder`` are served, on this machine only."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()

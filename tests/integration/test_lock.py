"""Locks made by the real uv from the real index."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import saf_env
from saf_env.errors import LockError, ToolchainError, UsageError
from saf_env.lock import downloads, store
from saf_env.lock.downloads import Build, from_uv, newest
from saf_env.lock.make import LockOutcome, make
from saf_env.lock.system import find_system, installed
from saf_env.platforms import PLATFORMS, this_platform
from saf_env.spec.model import Archive, ClusterSpec
from saf_env.spec.parse import parse
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, cache_root, find_uv

ROOT = Path(saf_env.__file__).parent.parent
ALL = tuple(sorted(PLATFORMS))
SMALL = """
[cluster]
name = "small"
[python]
version = ">=3.10,<3.15"
[environment]
requires = ["idna"]
exclude_newer = "2026-11-10"
[hosts.here]
[[nodes]]
name = "only"
host = "here"
kind = "native"
role = "head"
"""
DEAD = "http://127.0.0.1:9"
OFFLINE = {"HTTPS_PROXY": DEAD, "HTTP_PROXY": DEAD, "ALL_PROXY": DEAD, "NO_PROXY": ""}
Lock = Callable[..., LockOutcome]


def small(*requires: str, platform: str | None = None) -> ClusterSpec:
    spec = parse(SMALL, trusted=True)
    here = replace(spec.hosts["here"], platform=platform)
    environment = replace(spec.environment, requires=requires or ("idna",))
    return replace(spec, environment=environment, hosts={"here": here})


def uv_for(home: Path, **environ: str) -> Uv:
    """The project's uv with its cache, working for the project folder ``home``."""
    (home / ".saf").mkdir(exist_ok=True)
    shared = {"SAF_ENV_CACHE": str(cache_root(ROOT)), "UV_HTTP_RETRIES": "1"}
    return Uv(LocalTransport(), find_uv(ROOT).binary, home, {**os.environ, **shared, **environ})


def table(path: Path, version: str = "3.13.7", sha256: str | None = "ab" * 32) -> Path:
    """A table of interpreters with one version for every platform, at ``path``."""
    builds = [Build(p, version, "20260814", f"https://x.test/{p}", sha256) for p in ALL]
    path.write_text(json.dumps(dict(b.row() for b in builds)), encoding="utf-8")
    return path


def content(home: Path) -> dict[str, bytes]:
    """Every file below ``lockfiles`` of ``home``."""
    folder = home / "lockfiles"
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def notices() -> list[str]:
    """What the user is told while a lock is made."""
    return []


@pytest.fixture
def lock(tmp_path: Path, notices: list[str]) -> Lock:
    """Locks a cluster in ``tmp_path`` with interpreters from a table."""

    def run(spec: ClusterSpec, home: Path = tmp_path, **options: object) -> LockOutcome:
        options.setdefault("downloads", table(tmp_path / "table.json"))
        options.setdefault("uv", uv_for(home))
        return make(spec, home, notify=notices.append, **options)  # type: ignore[arg-type]

    return run


# Versions


def test_versions_are_kept_until_an_upgrade(lock: Lock, tmp_path: Path) -> None:
    first = lock(small("idna<3.10", "packaging<24"))
    assert first.written
    assert first.changes == ()
    wider = small("idna", "packaging")
    kept = lock(wider)
    assert kept.written
    assert kept.changes == ()
    one = lock(wider, upgrade_packages=["Idna"])
    assert [line.split()[0] for line in one.changes] == ["idna"]
    everything = lock(wider, upgrade=True, downloads=table(tmp_path / "new.json", "3.13.9"))
    assert everything.changes[0] == "python 3.13.7 -> 3.13.9"
    (packaging,) = (line for line in everything.changes if line.startswith("packaging 23"))
    assert packaging.endswith("  (base, driver)")


def test_an_upgrade_after_a_command_that_was_killed(lock: Lock, tmp_path: Path) -> None:
    lock(small("idna<3.10"))
    folder = tmp_path / "lockfiles" / "small"
    folder.rename(folder.with_name(".small.old"))  # between the two renames
    upgraded = lock(small("idna"), upgrade=True)
    assert [line.split()[0] for line in upgraded.changes] == ["idna"]


def test_a_fresh_lock_runs_nothing(lock: Lock, tmp_path: Path) -> None:
    made = lock(small())
    no_uv = replace(uv_for(tmp_path), binary=Path("/nonexistent/uv"))
    again = lock(small(), uv=no_uv, downloads=None)
    assert again == LockOutcome(made.lock, (), written=False)
    assert lock(small(), uv=no_uv) == again  # with the table that it was made from, too


def test_the_interpreter_is_kept(lock: Lock, tmp_path: Path) -> None:
    lock(small())
    newer = table(tmp_path / "newer.json", "3.13.9")
    assert lock(small("idna", "packaging"), downloads=None).lock.python == "3.13.7"
    assert lock(small("idna"), downloads=newer).lock.python == "3.13.9"


def test_a_package_that_nobody_asked_for(lock: Lock) -> None:
    with pytest.raises(UsageError, match="nonsense is no package of cluster small"):
        lock(small(), upgrade_packages=["nonsense"])


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("idna==99", "there is no version of idna==99"),
        ("docopt", "Wheels are required for `docopt`"),
        ("triton", "triton"),
        ("idna>3,<2", "which are incompatible"),
    ],
)
def test_a_failed_resolution_keeps_the_old_lock(
    lock: Lock, tmp_path: Path, requirement: str, words: str
) -> None:
    lock(small(platform="macos-arm64"))
    before = content(tmp_path)
    with pytest.raises(LockError, match="cannot be resolved; lockfiles/ is as it was") as caught:
        lock(small(requirement, platform="macos-arm64"))
    assert words in caught.value.message
    assert "hint: While the active Python" not in caught.value.message
    assert content(tmp_path) == before
    assert [p.name for p in (tmp_path / ".saf" / "tmp").iterdir()] == []


def test_a_damaged_lock_is_made_anew(lock: Lock, tmp_path: Path, notices: list[str]) -> None:
    lock(small("idna<3.10"))
    before = content(tmp_path)
    path = store.lock_folder(tmp_path, "small") / "environments" / "base.txt"
    path.write_text(path.read_text() + "\n")
    lock(small("idna<3.10"))
    assert "base.txt is not what `saf-env lock` wrote" in notices[0]
    assert content(tmp_path) == before


def test_another_clusters_lock_is_not_replaced(lock: Lock, tmp_path: Path) -> None:
    lock(small())
    folder = store.lock_folder(tmp_path, "small")
    folder.rename(folder.with_name("other"))
    before = content(tmp_path)
    with pytest.raises(LockError, match="is the lock of cluster small, not of other"):
        lock(replace(small(), name="other"))
    assert content(tmp_path) == before


def test_two_at_once_make_one(lock: Lock) -> None:
    # Warm up first, so that both find the same thing to do at the same time.
    start = threading.Barrier(2)

    def one(_: int) -> LockOutcome:
        start.wait(10)
        return lock(small())

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, range(2)))
    assert outcomes[0].lock == outcomes[1].lock
    assert sorted(outcome.written for outcome in outcomes) == [False, True]


# The index


def test_no_network_and_an_empty_cache(lock: Lock, tmp_path: Path) -> None:
    uv = uv_for(tmp_path, **OFFLINE, SAF_ENV_CACHE=str(tmp_path / "cache"), UV_HTTP_RETRIES="0")
    with pytest.raises(LockError, match="the package index cannot be reached, and the cache"):
        lock(small(), uv=uv)
    assert content(tmp_path) == {}


def test_no_network_and_a_warm_cache(lock: Lock, tmp_path: Path, notices: list[str]) -> None:
    made = lock(small())
    home = tmp_path / "again"
    home.mkdir()
    again = lock(small(), home, uv=uv_for(home, **OFFLINE, UV_HTTP_RETRIES="0"))
    assert again.lock == made.lock
    assert notices[-1].startswith("the package index cannot be reached; resolved from")


# Interpreters


@contextmanager
def server(answers: Mapping[str, bytes], stall: float = 0.0) -> Iterator[str]:
    """Serve ``answers`` by path; with ``stall``, one byte each so many seconds."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            for byte in body or b"" if stall else ():
                if ended.wait(stall):
                    return
                self.wfile.write(bytes([byte]))
            if not stall:
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            ended.set()
            running.shutdown()
            thread.join()


def checksum_files(uv: Uv, spec: ClusterSpec, platforms: tuple[str, ...]) -> dict[str, bytes]:
    """What a mirror of the releases serves: the checksum file of the newest build's release."""
    from packaging.specifiers import SpecifierSet

    builds = newest(from_uv(uv, platforms), SpecifierSet(spec.python.version), platforms, "")
    lines: dict[str, str] = {}
    for build in builds.values():
        name = build.url.rsplit("/", 1)[1].replace("%2B", "+")
        digest = hashlib.sha256(name.encode()).hexdigest()
        path = f"/{build.build}/SHA256SUMS"
        lines[path] = lines.get(path, "") + f"{digest}  {name}\n"
    return {path: text.encode() for path, text in lines.items()}


def test_managed_takes_digests_from_the_releases(
    lock: Lock, tmp_path: Path, notices: list[str]
) -> None:
    spec = small(platform="macos-arm64")
    answers = checksum_files(uv_for(tmp_path), spec, ("macos-arm64",))
    with server(answers) as address:
        uv = uv_for(tmp_path, UV_PYTHON_INSTALL_MIRROR=address)
        made = lock(spec, uv=uv, downloads=None).lock
    found = made.toolchains["only"].interpreters["macos-arm64"]
    name = found.url.rsplit("/", 1)[1].replace("%2B", "+")
    assert notices == []
    assert found.source == "managed"
    assert found.sha256 == hashlib.sha256(name.encode()).hexdigest()
    assert address not in found.url, "the lock serves people without this mirror too"
    assert f"/{found.build}/" in found.url


@pytest.mark.parametrize("trouble", ["refused", "missing", "portal", "drip"])
def test_unreachable_releases_fall_to_the_system(
    lock: Lock,
    tmp_path: Path,
    notices: list[str],
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "RELEASE_SECONDS", 0.5)
    here = this_platform()
    assert here
    answers = checksum_files(uv_for(tmp_path), small(), (here.name,))
    if trouble != "drip":
        answers = dict.fromkeys(
            answers, b"<html>please log in</html>" if trouble == "portal" else b""
        )
    with server(answers, stall=0.1 if trouble == "drip" else 0) as address:
        mirror = DEAD if trouble == "refused" else address
        uv = uv_for(tmp_path, UV_PYTHON_INSTALL_MIRROR=mirror)
        made = lock(small(), uv=uv, downloads=None).lock
        (notice,) = notices
        with pytest.raises(ToolchainError, match="managed: "):
            lock(small(), uv=uv, downloads=None, python_source="managed")
    assert notice.startswith("managed interpreters cannot be had: http://127.0.0.1")
    assert notice.endswith(f"locking CPython {made.python} from source system instead")
    found = made.toolchains["only"].interpreters[here.name]
    assert (found.source, found.url) == ("system", "")
    assert made.downloads == {}
    assert find_system(uv, found) is not None
    assert find_system(uv, replace(found, sha256="ab" * 32)) is None


def test_this_machines_interpreters_are_told_apart(tmp_path: Path) -> None:
    found = installed(uv_for(tmp_path))
    assert len({f.path for f in found}) == len(found)
    assert len({f.interpreter.sha256 for f in found}) == len(found)
    assert all(f.path.is_absolute() and not f.path.is_symlink() for f in found)


def test_a_python_that_no_source_has(lock: Lock, tmp_path: Path) -> None:
    spec = small()
    spec = replace(spec, python=replace(spec.python, version="==3.12.99"))
    with pytest.raises(ToolchainError, match=r"no CPython ==3\.12\.99 can be locked") as caught:
        lock(spec, downloads=None)
    assert "this machine has no CPython in the range ==3.12.99; it has 3." in caught.value.message
    assert "--python-downloads" in caught.value.hint


def test_another_platform_needs_builds_to_download(lock: Lock, tmp_path: Path) -> None:
    uv = uv_for(tmp_path, UV_PYTHON_INSTALL_MIRROR=DEAD)
    with pytest.raises(ToolchainError, match="cannot serve macos-arm64") as caught:
        lock(small(platform="macos-arm64"), uv=uv, downloads=None)
    assert "--python-downloads" in caught.value.hint


def test_a_table_without_digests_is_refused(lock: Lock, tmp_path: Path) -> None:
    lock(small())
    before = content(tmp_path)
    with pytest.raises(ToolchainError, match="has a sha256"):
        lock(small("packaging"), downloads=table(tmp_path / "null.json", sha256=None))
    assert content(tmp_path) == before


def test_packed_interpreters(lock: Lock, tmp_path: Path) -> None:
    here = this_platform()
    assert here
    (tmp_path / "python.tar.gz").write_bytes(b"packed")
    digest = hashlib.sha256(b"packed").hexdigest()
    spec = small()

    def packed(sha256: str, version: str = "3.12.1") -> ClusterSpec:
        archives = {here.name: Archive("python.tar.gz", version, sha256)}
        return replace(spec, python=replace(spec.python, archives=archives, source="archive"))

    found = lock(packed(digest), downloads=None).lock.toolchains["only"].interpreters[here.name]
    assert (found.source, found.build, found.url) == ("archive", "python.tar.gz", "python.tar.gz")
    assert (found.version, found.sha256) == ("3.12.1", digest)
    with pytest.raises(ToolchainError, match=f"has sha256 {digest}"):
        lock(packed("ab" * 32), downloads=None)
    with pytest.raises(ToolchainError, match=r"holds CPython 3\.9\.1"):
        lock(packed(digest, "3.9.1"), downloads=None)

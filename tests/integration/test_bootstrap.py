"""``make`` in a fresh copy of this checkout, in a folder called ``a b é``, with real pip and uv."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINNED_UV = Path(sys.prefix, "bin", "uv").resolve()
PIN = (ROOT / "saf_env" / "uv-pin.txt").read_text(encoding="utf-8")
VERSION = PIN.split("uv==")[1].split()[0]
COMMAND = ("make", "status", "ARGS=--help")
NO_NETWORK = {
    **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("https_proxy", "http_proxy", "all_proxy"), "http://127.0.0.1:9"),
    "NO_PROXY": "",
    "no_proxy": "",
    "PIP_RETRIES": "0",
    "UV_HTTP_RETRIES": "0",
}


def copy_checkout(target: Path) -> Path:
    """Copy what git knows and what it does not ignore, as a clone would have it."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def path_without_uv(extra: Path) -> str:
    """PATH with ``extra`` first, less every folder that has a uv; python3 is kept in ``extra``."""
    extra.mkdir(exist_ok=True)
    python = shutil.which("python3")
    assert python
    (extra / "python3").symlink_to(python)
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join([str(extra), *(f for f in folders if not Path(f, "uv").exists())])


class Checkout:
    """A copy of the project, and a machine around it: an empty home, an empty temp folder, PATH."""

    def __init__(self, base: Path, cache: Path | None) -> None:
        self.path = copy_checkout(base / "a b é")
        self.saf = self.path / ".saf"
        self.home = base / "home"
        self.temp = base / "temp"
        self.bin = base / "bin"
        for folder in (self.home, self.temp):
            folder.mkdir()
        settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        self.env = {
            # What `make test` exports to its recipe belongs to that make.
            **{k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "UV_"))},
            **{k: v for k, v in os.environ.items() if re.match("UV_.*(INDEX|LINKS|TLS)", k)},
            "HOME": str(self.home),
            "TMPDIR": str(self.temp),
            "PATH": path_without_uv(self.bin),
            "XDG_CONFIG_HOME": settings,
        }
        self.env.pop("SAF_ENV_CACHE", None)
        if cache:
            self.env["SAF_ENV_CACHE"] = str(cache)

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command or COMMAND,
            cwd=self.path,
            env={**self.env, **env},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    def put_uv_on_path(self) -> None:
        (self.bin / "uv").symlink_to(PINNED_UV)

    def made(self) -> set[str]:
        """What stands in ``.saf`` that somebody could take for finished."""
        return {str(p.relative_to(self.saf)) for p in self.saf.glob("*") if p.is_dir()} - {"cache"}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share; the first one to use it fills it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def checkout(tmp_path: Path, cache: Path) -> Checkout:
    return Checkout(tmp_path, cache)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Checkout:
    """A checkout whose first ``make`` is done, with the uv of PATH."""
    checkout = Checkout(tmp_path_factory.mktemp("ready"), cache)
    checkout.put_uv_on_path()
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert "getting uv" not in result.stderr
    return checkout


def test_first_make_has_all_it_needs_and_writes_nowhere_else(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, cache=None)
    before = {path.name for path in checkout.path.iterdir()}
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert f"getting uv {VERSION}" in result.stderr
    uv = checkout.saf / "uv" / VERSION / "bin" / "uv"
    said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True, timeout=20)
    assert said.stdout.split()[:2] == ["uv", VERSION]
    assert list(checkout.home.iterdir()) == []
    assert list(checkout.temp.iterdir()) == []
    assert {path.name for path in checkout.path.iterdir()} - before == {".saf"}
    assert checkout.made() == {"uv", "tool"}


def test_second_make_does_nothing(ready: Checkout) -> None:
    def seen() -> dict[str, int]:
        return {str(p): p.lstat().st_mtime_ns for p in ready.saf.rglob("*")}

    before = seen()
    # Were a Python needed to find out, this one would say so.
    broken = ready.home.parent / "broken"
    broken.mkdir()
    (broken / "python3").write_text("#!/bin/sh\nexit 99\n")
    (broken / "python3").chmod(0o755)
    result = ready.run(PATH=f"{broken}{os.pathsep}{ready.env['PATH']}")
    assert (result.returncode, result.stderr) == (0, "")
    assert seen() == before


def test_uv_of_path_is_taken_when_it_is_the_pinned_one(ready: Checkout) -> None:
    taken = ready.saf / "uv" / VERSION / "bin" / "uv"
    assert not taken.is_symlink(), "an upgrade of the other one must not change ours"
    assert taken.read_bytes() == PINNED_UV.read_bytes()


@pytest.mark.parametrize(
    "script",
    ["#!/bin/sh\necho uv 0.1.0\n", '#!/bin/sh\nexec "$REAL_UV" "$@"\n', "#!/bin/sh\nexit 1\n"],
    ids=["other-version", "launcher", "broken"],
)
def test_other_uv_of_path_is_left_alone(checkout: Checkout, script: str) -> None:
    (checkout.bin / "uv").write_text(script)
    (checkout.bin / "uv").chmod(0o755)
    result = checkout.run(REAL_UV=str(PINNED_UV))
    assert result.returncode == 0, result.stderr
    assert f"getting uv {VERSION}" in result.stderr


@pytest.mark.parametrize("name", ["saf_env/uv-pin.txt", "lockfiles/saf-env.txt"])
def test_wrong_digest_is_refused_and_leaves_nothing(checkout: Checkout, name: str) -> None:
    pinned = checkout.path / name
    text = pinned.read_text(encoding="utf-8")
    pinned.write_text(re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", text), encoding="utf-8")
    if "lockfiles" in name:
        checkout.put_uv_on_path()
    result = checkout.run("sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help")
    assert result.returncode == 3
    assert "is not the one that is locked" in result.stderr
    assert checkout.made() <= {"uv"}
    assert "lockfiles" in name or not (checkout.saf / "uv").exists()


def test_missing_digest_is_refused(checkout: Checkout) -> None:
    lock = checkout.path / "lockfiles" / "saf-env.txt"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(re.sub(r"(?s) \\\n    --hash=.*?(?=\n\w)", "", text, count=1), encoding="utf-8")
    checkout.put_uv_on_path()
    result = checkout.run("sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help")
    assert result.returncode == 3
    assert checkout.made() == {"uv"}


def test_changed_lock_makes_the_environment_anew(checkout: Checkout) -> None:
    checkout.put_uv_on_path()
    assert checkout.run().returncode == 0
    before = (checkout.saf / "tool").stat().st_ino
    lock = checkout.path / "lockfiles" / "saf-env.txt"
    lock.write_text(lock.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    result = checkout.run()
    assert result.returncode == 0
    assert "making saf-env's own environment" in result.stderr
    assert (checkout.saf / "tool").stat().st_ino != before
    assert checkout.made() == {"uv", "tool"}


def test_interrupted_make_is_not_believed(checkout: Checkout) -> None:
    checkout.put_uv_on_path()
    command = ["sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help"]
    with subprocess.Popen(
        command, cwd=checkout.path, env=checkout.env, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list(checkout.saf.glob("new-*/tool/lib")):
            assert time.monotonic() < deadline
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    assert not (checkout.saf / "tool").exists()
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert checkout.made() == {"uv", "tool"}


def test_settings_of_a_project_above_do_not_count(checkout: Checkout) -> None:
    checkout.put_uv_on_path()
    theirs = 'required-version = "==0.8.0"\nworkspace = { members = ["*"] }\n'
    above = checkout.path.parent / "pyproject.toml"
    above.write_text(f'[project]\nname = "theirs"\nversion = "0"\n[tool.uv]\n{theirs}')
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert (checkout.saf / ".gitignore").read_text() == "*\n"


def test_two_makes_at_once_make_it_once(checkout: Checkout) -> None:
    checkout.put_uv_on_path()
    both = [
        subprocess.Popen(
            COMMAND, cwd=checkout.path, env=checkout.env, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("making saf-env's own environment") == 1


def test_no_network_and_nothing_cached(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, cache=None)
    result = checkout.run("sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help", **NO_NETWORK)
    assert result.returncode == 3
    assert result.stderr.count("the package index cannot be reached") == 1
    assert "hint: the first run needs a network" in result.stderr
    assert checkout.made() == set()
    checkout.put_uv_on_path()
    result = checkout.run("sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help", **NO_NETWORK)
    assert result.returncode == 3
    assert result.stderr.count("the package index cannot be reached") == 1
    assert checkout.made() == {"uv"}


def test_no_network_and_all_cached(ready: Checkout, checkout: Checkout) -> None:
    assert ready.env["SAF_ENV_CACHE"] == checkout.env["SAF_ENV_CACHE"]
    checkout.put_uv_on_path()
    result = checkout.run(*COMMAND, **NO_NETWORK)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="saf-env-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_read_only_folder_is_said_in_one_line(open_folder: Path) -> None:
    checkout = copy_checkout(open_folder / "a b é")
    checkout.chmod(0o555)
    # Modes do not bind root, so root does this as another user.
    root = os.geteuid() == 0
    result = subprocess.run(
        ["sh", "saf_env/bootstrap.sh", "tool", "saf-env", "--help"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        user=65534 if root else None,
        group=65534 if root else None,
        extra_groups=[] if root else None,
    )
    checkout.chmod(0o755)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if not line.startswith("hint: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: the project folder cannot be written")


def test_command_works_from_elsewhere_by_a_link_and_with_a_spoilt_environment(
    ready: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "saf_env.py").write_text("raise SystemExit('the wrong saf_env')")
    link = tmp_path / "saf-env"
    link.symlink_to(ready.saf / "tool" / "bin" / "saf-env")
    result = subprocess.run(
        [link, "--version"],
        cwd=tmp_path,
        env={**ready.env, "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_project_may_be_moved(ready: Checkout) -> None:
    moved = ready.path.with_name("moved")
    ready.path.rename(moved)
    try:
        result = subprocess.run(
            COMMAND,
            cwd=moved,
            env=ready.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        moved.rename(ready.path)
    assert (result.returncode, result.stderr) == (0, "")


def uv(cache: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PINNED_UV, *args],
        cwd=ROOT,
        env={**os.environ, "UV_CACHE_DIR": str(cache / "uv"), **env},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "platform", ["aarch64-apple-darwin", "x86_64-manylinux_2_28", "aarch64-manylinux_2_28"]
)
def test_locked_wheels_exist_for_every_platform(cache: Path, tmp_path: Path, platform: str) -> None:
    for python in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        result = uv(
            cache,
            *("pip", "install", "--dry-run", "--require-hashes", "--only-binary", ":all:"),
            *("--python-platform", platform, "--python-version", python),
            *("--target", str(tmp_path), "-r", "lockfiles/saf-env-dev.txt"),
            MACOSX_DEPLOYMENT_TARGET="14.0",
        )
        assert result.returncode == 0, f"Python {python}: {result.stderr}"


def test_pins_are_what_make_pins_would_write(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SAF_ENV_CACHE", str(cache))
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
    assert spec
    assert spec.loader
    pins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pins)
    assert pins.uv_pin(VERSION) == PIN


def test_package_builds_offline_with_its_data_files(cache: Path, tmp_path: Path) -> None:
    result = uv(cache, "build", "--wheel", "--offline", "--out-dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = {p.relative_to(ROOT).as_posix() for p in (ROOT / "saf_env" / "schemas").glob("*.json")}
    assert data | {"saf_env/uv-pin.txt", "saf_env/py.typed", "saf_env/probe.py"} <= names
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)

"""Makes saf-env's own environments: the pinned uv, and with it ``.saf/tool`` or ``.saf/dev``.

In: ``saf_env/uv-pin.txt`` and a lock file. Out: ``.saf/uv/<version>/bin/uv`` and an environment
whose ``inputs`` file is a copy of all that it was made from. Started by ``bootstrap.sh`` in the
project folder, under whatever Python 3.9 or newer the machine has: standard library only, and
nothing of saf_env. Nothing is written outside the project folder.

Everything is made in a fresh folder and renamed into place when it is whole, so that what an
interrupted run leaves is never taken for the real thing; the next run removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PIN = Path("saf_env/uv-pin.txt")
SCRIPT = Path("saf_env/bootstrap.py")
SAF = Path(".saf")
PYTHONS = ">=3.10,<3.15"
OWN_FILES = {  # as in saf_env/uv.py, which says why
    ".gitignore": "*\n",
    "pyproject.toml": """\
# Here uv stops to look for settings: those of the folders above are not for what is made in here.
[tool.uv]
workspace = { members = [] }
""",
}
TIMEOUT = 900.0  # seconds for one command: no download of ours is longer on a line that works

# Finds its own folder without the help of other programs, through links too, so the project
# folder may be moved. -I: no PYTHONPATH, no user's packages.
LAUNCHER = """\
#!/bin/sh
self=$0
while [ -h "$self" ]; do
    link=$(readlink "$self")
    case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
exec "${self%/*}/python" -I "${self%/*}/../../../saf_env/__main__.py" "$@"
"""

NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ConnectionReset|ProxyError|SSLError|Retrying \("
    r"|dns error|error sending request|[Ff]ailed to fetch|[Cc]onnection (refused|reset|timed out)"
    r"|operation timed out|Network is unreachable|from versions: none"
)
WRONG_DIGEST = re.compile(r"DO NOT MATCH THE HASHES|[Hh]ash mismatch")


class Failure(Exception):
    """Something the user must know: a message, what to do next, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: int = 3) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def main(argv: Sequence[str]) -> int:
    """Make the environment ``argv[0]`` from the lock file ``argv[1]``; return the exit code."""
    name, lock = argv
    try:
        ensure(name, Path(lock))
    except Failure as failure:
        return report(failure)
    except OSError as error:
        return report(os_failure(error))
    except KeyboardInterrupt:
        return report(Failure("interrupted; nothing was left half made", code=130))
    return 0


def ensure(name: str, lock: Path) -> None:
    """Make uv and the environment ``name``, unless they stand already.

    Raises:
        Failure: they cannot be made.
        OSError: the project folder cannot be written.
    """
    SAF.mkdir(exist_ok=True)
    with locked(SAF / "bootstrap.lock"):
        for leftover in SAF.glob("new-*"):
            shutil.rmtree(leftover)
        write_own_files()
        uv = ensure_uv(PIN.read_text(encoding="utf-8"))
        inputs = b"".join(path.read_bytes() for path in (PIN, SCRIPT, lock))
        place = SAF / name
        if not is_made_from(place, inputs):
            with fresh_folder() as work:
                make_environment(work, name, lock, uv)
                (work / name / "inputs").write_bytes(inputs)
                publish(work / name, place, work)


def write_own_files() -> None:
    """Put :data:`OWN_FILES` into ``.saf``, each one whole or not at all."""
    for name, text in OWN_FILES.items():
        if not (SAF / name).exists():
            with fresh_folder() as work:
                (work / name).write_text(text, encoding="utf-8")
                (work / name).rename(SAF / name)


def ensure_uv(pin: str) -> Path:
    """The pinned uv: the one that stands in ``.saf/uv``, that of PATH, or a new download."""
    version = pin.split("uv==", maxsplit=1)[1].split(maxsplit=1)[0]
    place = SAF / "uv" / version
    binary = place / "bin" / "uv"
    if os.access(binary, os.X_OK):
        return binary
    with fresh_folder() as work:
        if not copy_uv_of_path(work / "uv" / "bin" / "uv", version):
            download_uv(work, version)
        place.parent.mkdir(exist_ok=True)
        publish(work / "uv", place, work)
    return binary


def copy_uv_of_path(target: Path, version: str) -> bool:
    """Copy the uv of PATH to ``target`` if it is the pinned one.

    A copy stays what it is when the original is upgraded. It is asked for its version with an
    empty environment, so that a launcher script which finds uv by other means is not taken for it.
    """
    found = shutil.which("uv")
    if not found or uv_version(Path(found), os.environ) != version:
        return False
    target.parent.mkdir(parents=True)
    shutil.copy(found, target)
    if uv_version(target, {}) == version:
        return True
    shutil.rmtree(target.parent.parent)
    return False


def uv_version(binary: Path, env: Mapping[str, str]) -> str:
    """What ``uv --version`` says, or an empty text if it says nothing."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        out = subprocess.run(
            [str(binary.absolute()), "--version"],
            env=dict(env),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
        words = out.split()
        return words[1] if words[:1] == ["uv"] and len(words) > 1 else ""
    return ""


def download_uv(work: Path, version: str) -> None:
    """Install the pinned uv's wheel into ``work/uv`` by pip, its digest checked."""
    say(f"getting uv {version}")
    options = (
        "install --quiet --disable-pip-version-check --no-cache-dir --no-compile "
        "--require-hashes --only-binary :all: --no-deps"
    )
    result = run(
        [*pip_command(), *options.split(), "--target", str(work / "uv"), "-r", str(PIN)],
        work,
        {
            # A user who set these for pip at large would keep it from working here.
            "PIP_USER": "0",
            "PIP_REQUIRE_VIRTUALENV": "0",
            # pip asks rustc for its version, and rustup's would make its folder in the home.
            "RUSTUP_HOME": str((work / "tmp").absolute()),
        },
    )
    what = f"uv {version} could not be installed"
    if result.returncode:
        raise install_failure(what, result.stdout)
    if not (work / "uv" / "bin" / "uv").exists():
        raise Failure(
            f"{what}: {PIN} has no wheel for this platform",
            "saf-env runs on macOS arm64, Linux x86_64 and Linux arm64",
        )


def pip_command() -> list[str]:
    """A pip that works: this Python's, that of the Python it came from, or the bundled wheel."""
    base = Path(sys.base_prefix) / "bin" / "python3"
    candidates = [[sys.executable, "-m", "pip"], [str(base), "-m", "pip"]]
    with contextlib.suppress(ImportError):
        import ensurepip

        wheels = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
        candidates += [[sys.executable, str(wheel / "pip")] for wheel in wheels]
    for command in candidates:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if not subprocess.run(
                [*command, "--version"], capture_output=True, timeout=60, check=False
            ).returncode:
                return command
    raise Failure(
        f"{sys.executable} has no pip, which is needed once, to fetch uv",
        "install it (Debian: apt-get install python3-pip), or put the pinned uv on PATH",
    )


def make_environment(work: Path, name: str, lock: Path, uv: Path) -> None:
    """Make the environment ``work/name`` from ``lock``, and saf-env importable in it."""
    say(f"making saf-env's own environment in .saf/{name}")
    place = work / name
    venv = ["venv", "--no-project", "--relocatable", "--python", PYTHONS, str(place)]
    result = uv_run(venv, work, uv)
    if result.returncode:
        raise Failure(
            f"uv could not make an environment with Python {PYTHONS}\n{tail(result.stdout)}",
            "install one of these Pythons, or give UV_PYTHON_INSTALL_MIRROR to let uv fetch one",
        )
    options = "--require-hashes --only-binary :all: --link-mode copy --compile-bytecode"
    sync = ["pip", "sync", *options.split(), "--python", str(place / "bin" / "python"), str(lock)]
    # Every file is pinned by digest, so one that the cache has need not be asked for again; this
    # is also what makes it work without a network.
    if uv_run([*sync, "--offline"], work, uv).returncode:
        result = uv_run(sync, work, uv)
        if result.returncode:
            raise install_failure("saf-env's own packages could not be installed", result.stdout)
    (packages,) = place.glob("lib/python3.*/site-packages")
    # A relative line is relative to the folder of the .pth file: the project may be moved.
    (packages / "saf-env.pth").write_text("../../../../..\n", encoding="ascii")
    launcher = place / "bin" / "saf-env"
    launcher.write_text(LAUNCHER, encoding="ascii")
    launcher.chmod(0o755)
    (place / "bin" / "uv").symlink_to(Path("../../..") / uv)


def uv_run(args: Sequence[str], work: Path, uv: Path) -> subprocess.CompletedProcess[str]:
    """Run uv with cache and interpreters inside the project."""
    cache = Path(os.environ.get("SAF_ENV_CACHE") or SAF / "cache")
    variables = {
        "UV_CACHE_DIR": str(cache.absolute() / "uv"),
        "UV_PYTHON_INSTALL_DIR": str((SAF / "python").absolute()),
        "UV_NO_PROGRESS": "1",
    }
    # The project is where uv begins to look for settings.
    return run(
        [str(uv.absolute()), "--quiet", "--project", str(SAF.absolute()), *args], work, variables
    )


def run(
    argv: Sequence[str], work: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command with the user's environment (index, proxy, certificates) and ``variables``."""
    temp = work / "tmp"
    temp.mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(temp.absolute()), **variables}
    try:
        return subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{Path(argv[0]).name} did not finish in {TIMEOUT:.0f} s") from None


def install_failure(what: str, output: str) -> Failure:
    """The failure that the output of pip or uv tells of, its last lines included."""
    if WRONG_DIGEST.search(output):
        return Failure(
            f"{what}: a downloaded file is not the one that is locked\n{tail(output)}",
            "nothing was installed; if an index or a mirror serves other files, tell its owner",
        )
    if NO_NETWORK.search(output):
        return Failure(
            f"{what}: the package index cannot be reached, or lacks it\n{tail(output)}",
            "the first run needs a network; behind a proxy or mirror set HTTPS_PROXY, "
            "SSL_CERT_FILE, PIP_INDEX_URL and UV_DEFAULT_INDEX",
        )
    return Failure(f"{what}\n{tail(output)}")


def tail(output: str) -> str:
    """The last lines of a command's output, marked as such."""
    return "\n".join(f"  | {line}" for line in output.strip().splitlines()[-8:])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; the system lets go of it even when the process is killed."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another make in this folder")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder in ``.saf`` to make something in, removed afterwards with what is left in it."""
    work = Path(tempfile.mkdtemp(prefix="new-", dir=SAF))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def publish(made: Path, place: Path, work: Path) -> None:
    """Move what was made to its place; what was there before is removed with ``work``."""
    if place.exists():
        place.rename(work / "old")
    made.rename(place)


def is_made_from(place: Path, inputs: bytes) -> bool:
    """Whether the environment at ``place`` works and was made from ``inputs``."""
    try:
        same = (place / "inputs").read_bytes() == inputs
    except OSError:
        return False
    return same and all(os.access(place / "bin" / name, os.X_OK) for name in ("python", "uv"))


def os_failure(error: OSError) -> Failure:
    """What an error of the file system means for the user."""
    what = f"{error.filename or SAF}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure(
            f"the project folder cannot be written: {what}",
            "everything is kept in its folder .saf: clone it where you may write",
            code=2,
        )
    return Failure(what, "free some space" if error.errno == errno.ENOSPC else "")


def say(text: str) -> None:
    """Tell the user what takes time."""
    print(f"saf-env: {text}", file=sys.stderr, flush=True)


def report(failure: Failure) -> int:
    """Print a failure and return its exit code."""
    print(f"error: {failure.message}", file=sys.stderr)
    if failure.hint:
        print(f"hint: {failure.hint}", file=sys.stderr)
    return failure.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

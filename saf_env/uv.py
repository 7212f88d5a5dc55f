"""uv, run over a transport with an environment of our own making.

uv reads the user's own index settings (``UV_DEFAULT_INDEX``, ``UV_INDEX_URL``, its user-level
configuration file) and nothing else of ours: cache, interpreters and link mode are set here. It
would also read the settings of a ``pyproject.toml`` or ``uv.toml`` in any folder above the one it
runs in, the user's own project first of all: a file of ours in ``.saf`` is where it stops to look
(:func:`own_folder`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from saf_env.errors import CommandTimeoutError, SafEnvError, ToolchainError, UvTimeoutError
from saf_env.platforms import PLATFORMS
from saf_env.transports.base import NETWORK_VARIABLES, CommandResult, Transport

# What a company network needs, and what uv's own index settings are called.
_PASSED = (*NETWORK_VARIABLES, "SSL_CLIENT_CERT", "NETRC", "XDG_CONFIG_HOME")
_PASSED_UV = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PASSED_UV_MORE = (
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_INSECURE_HOST",
)

OWN_FILES = {
    ".gitignore": "*\n",
    "pyproject.toml": """\
# Here uv stops to look for settings: those of the folders above are not for what is made in here.
[tool.uv]
workspace = { members = [] }
""",
}
"""What saf-env puts into ``.saf``; ``bootstrap.py``, which can import nothing, has the same."""


def own_folder(home: Path) -> Path:
    """``.saf`` of the project ``home``, made if need be, with :data:`OWN_FILES` in it.

    Raises:
        OSError: something is missing there, and cannot be written.
    """
    folder = home / ".saf"
    folder.mkdir(exist_ok=True)
    for name, text in OWN_FILES.items():
        if not (folder / name).exists():
            # Renamed into place: another saf-env, or its uv, sees the whole file or none.
            new = folder / f".{name}.{os.urandom(4).hex()}"
            new.write_text(text, encoding="utf-8")
            new.replace(folder / name)
    return folder


def cache_root(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where downloads are kept: ``SAF_ENV_CACHE``, else ``.saf/cache`` of the project ``home``.

    A relative path is below ``home``: uv runs in many folders.
    """
    return home / (environ.get("SAF_ENV_CACHE") or Path(".saf", "cache"))


@dataclass(frozen=True)
class Uv:
    """One uv binary of one project.

    Attributes:
        transport: where it runs.
        binary: its absolute path there.
        home: the project folder there.
        environ: the environment to take index, proxy and certificate settings from.
        place: the folder that has ``.saf/python``, where interpreters are; None: ``home``.
    """

    transport: Transport
    binary: Path
    home: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    place: Path | None = None

    @property
    def pythons(self) -> Path:
        """Where interpreters are installed."""
        return (self.place or self.home) / ".saf" / "python"

    def variables(self) -> dict[str, str]:
        """The environment that uv gets."""
        names = (*_PASSED, *_PASSED_UV, *_PASSED_UV_MORE)
        passed = {k: v for k in names if (v := self.environ.get(k)) is not None}
        credentials = {
            k: v for k, v in self.environ.items() if k.startswith("UV_INDEX_") and k not in passed
        }
        return {
            **passed,
            **credentials,
            "UV_CACHE_DIR": str(cache_root(self.home, self.environ) / "uv"),
            "UV_PYTHON_INSTALL_DIR": str(self.pythons),
            "UV_PYTHON_INSTALL_BIN": "0",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
        }

    def run(
        self,
        args: Sequence[str],
        *,
        timeout: float = 600.0,
        cwd: Path | None = None,
        extra: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> CommandResult:
        """Run ``uv args`` and return its result, whatever its exit code.

        Args:
            args: uv's arguments, its name left out.
            timeout: seconds.
            cwd: the folder it runs in, below ``.saf`` of the project: elsewhere uv would read the
                settings of other projects. Default: ``.saf`` itself.
            extra: further variables.
            stdin: what it reads.

        Raises:
            UvTimeoutError: it took longer than ``timeout``.
            ToolchainError: it cannot be run, or ``.saf`` cannot be written.
        """
        try:
            own = own_folder(self.home)
        except OSError as error:
            raise ToolchainError(
                f"cannot write in {self.home / '.saf'}: {error.strerror}",
                hint="saf-env needs to write in .saf of the project folder, and free space there",
            ) from error
        try:
            return self.transport.run(
                [str(self.binary), *args],
                env={**self.variables(), **(extra or {})},
                timeout=timeout,
                stdin=stdin,
                cwd=str(cwd or own),
            )
        except CommandTimeoutError as error:
            words = " ".join(list(takewhile(lambda word: not word.startswith("-"), args))[:2])
            raise UvTimeoutError(
                f"{self.transport.host}: `uv {words}` did not finish within {timeout:.0f} s",
                hint="a download has stalled, or the machine is overloaded: look at the network, "
                "the proxy and the index, then run the command again",
            ) from error


def uv_binary(home: Path) -> Path:
    """Where ``make`` puts the pinned uv; see :func:`saf_env.uv.pinned_version`."""
    return home / ".saf" / "uv" / pinned_version() / "bin" / "uv"


def find_uv(home: Path, environ: Mapping[str, str] = os.environ) -> Uv:
    """The pinned uv on this machine: saf-env's own, else one on ``PATH`` that is exactly the pin.

    Args:
        home: the project folder.
        environ: where ``PATH`` and uv's index, proxy and certificate settings are taken from.

    Raises:
        ToolchainError: neither is there.
    """
    from saf_env.transports.local import LocalTransport

    transport = LocalTransport()
    beside_us = Path(sys.executable).with_name("uv")  # bootstrap links the pinned uv there
    for own in (uv_binary(home), beside_us):
        if own.is_file() and own.resolve().parts[-3:] == (pinned_version(), "bin", "uv"):
            return Uv(transport, own, home, environ)
    on_path = shutil.which("uv", path=environ.get("PATH", ""))
    if on_path:
        candidate = Uv(transport, Path(on_path).absolute(), home, environ)
        with contextlib.suppress(SafEnvError):
            # Not by its run(): a folder that cannot be written may be looked at all the same.
            argv = [str(candidate.binary), "--version"]
            said = transport.run(argv, env=candidate.variables(), timeout=10.0, cwd="/")
            if said.ok and said.stdout.split()[:2] == ["uv", pinned_version()]:
                return candidate
    raise ToolchainError(
        f"uv {pinned_version()} is neither on PATH nor in {uv_binary(home).parent}",
        hint="run `make` in the project folder: it fetches the pinned uv",
    )


def pinned_version() -> str:
    """The exact uv version that saf-env works with, from ``uv-pin.txt``."""
    return _pin().split("uv==", 1)[1].split()[0]


def pinned_wheels() -> dict[str, str]:
    """SHA-256 of the wheel of the pinned uv, by platform name, from ``uv-pin.txt``."""
    wheels = {}
    for line in _pin().splitlines():
        digest = re.search(r"--hash=sha256:([0-9a-f]{64})", line)
        for platform in PLATFORMS.values():
            if digest and platform.marker in line:
                wheels[platform.name] = digest[1]
    return wheels


def _pin() -> str:
    return (Path(__file__).parent / "uv-pin.txt").read_text(encoding="utf-8")

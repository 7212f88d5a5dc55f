"""What a build in a container needs to reach the package index as the controller's uv does.

In goes the :class:`~saf_env.uv.Uv` of the controller, out come BuildKit secrets: its variables with
paths that are true in the build, and the files that they name. Nothing of it may become an
argument, a variable or a layer of the image.
"""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from saf_env.errors import ToolchainError
from saf_env.uv import Uv

_MOST = 500 * 1024  # buildkit: session/secrets/secrets.go, MaxSecretSize
_MOUNTED = "/tmp/reach/"
WHEELS = "/tmp/build/wheels"
"""Where wheels of local folders are in the build."""

# What is different in the build, or without a meaning there.
_OF_THE_CONTROLLER = frozenset(
    {
        "HOME",
        "PATH",
        "LANG",
        "USER",
        "TMPDIR",
        "XDG_CONFIG_HOME",
        "SSL_CERT_DIR",
        "UV_CACHE_DIR",
        "UV_FIND_LINKS",
        "UV_KEYRING_PROVIDER",
        "UV_PYTHON_INSTALL_BIN",
        "UV_PYTHON_INSTALL_DIR",
        "UV_NO_PROGRESS",
        "NO_COLOR",
    }
)
_FILES = {
    "SSL_CERT_FILE": "certificates",
    "SSL_CLIENT_CERT": "client-certificate",
    "NETRC": "netrc",
}
_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOPBACK = re.compile(r"://([^/@\s]*@)?(localhost|127\.[\d.]+|\[::1\])[:/\s]")


@dataclass(frozen=True)
class Settings:
    """The secrets of a build.

    Attributes:
        text: variables, as lines for a shell.
        files: by id of the secret.
        wheel_folders: folders of this machine in which uv looks for wheels.
        loopback: whether an address among it is this machine's own.
    """

    text: str
    files: Mapping[str, Path]
    wheel_folders: Sequence[Path]
    loopback: bool


def settings(uv: Uv, folder: Path) -> Settings:
    """What ``uv`` goes by, for a build.

    Args:
        uv: the controller's.
        folder: an empty one for files that have to be made.

    Raises:
        ToolchainError: something of it cannot be had in a build.
    """
    given = uv.variables()
    _refuse_local_index(given)
    values = {k: v for k, v in given.items() if k not in _OF_THE_CONTROLLER and _NAME.fullmatch(k)}
    files = {_FILES[k]: Path(given[k]) for k in _FILES if given.get(k)}
    if "certificates" not in files and (bundle := _certificates(given, folder)):
        files["certificates"] = bundle
    home = Path(given.get("HOME", "/nonexistent"))
    config = Path(given.get("XDG_CONFIG_HOME") or home / ".config")
    for name, path in (
        ("netrc", home / ".netrc"),
        ("uv-user", config / "uv" / "uv.toml"),
        ("uv-system", Path("/etc/uv/uv.toml")),
    ):
        files.setdefault(name, path)
    files = {name: path for name, path in files.items() if _usable(path)}
    values |= {k: _MOUNTED + name for k, name in _FILES.items() if name in files}
    folders, links = _find_links(given.get("UV_FIND_LINKS", ""))
    if links:
        values["UV_FIND_LINKS"] = ",".join(links)
    text = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(values.items()))
    uv_files = [path.read_text("utf-8") for name, path in files.items() if name.startswith("uv-")]
    loopback = any(_LOOPBACK.search(f"{v} ") for v in (*values.values(), *uv_files))
    return Settings(text, files, folders, loopback)


def _usable(path: Path) -> bool:
    """Whether there is such a file, and BuildKit takes it."""
    if not path.is_file():
        return False
    if path.stat().st_size > _MOST:
        raise ToolchainError(
            f"{path} is larger than 500 kB, the most that a build takes as a secret",
            hint="set SSL_CERT_FILE to a file that has only the certificates that the index needs",
        )
    return True


def _certificates(given: Mapping[str, str], folder: Path) -> Path | None:
    """The certificates that uv would trust, as one file; None for those that it has built in."""
    if found := given.get("SSL_CERT_DIR"):
        names = sorted(p for f in found.split(":") for p in Path(f).glob("*.[cp][re][tm]"))
        whole = {p.resolve(): None for p in names if p.is_file()}
        bundle = folder / "certificates"
        bundle.write_bytes(b"\n".join(path.read_bytes() for path in whole))
        return bundle
    if given.get("UV_NATIVE_TLS", "").lower() in ("1", "true", "yes", "on"):
        system = ssl.get_default_verify_paths().cafile
        return Path(system) if system else None
    return None


def _refuse_local_index(given: Mapping[str, str]) -> None:
    for name in _INDEXES:
        for entry in given.get(name, "").split():
            address = entry.rpartition("=")[2] if "://" not in entry.partition("=")[0] else entry
            if address.startswith(("file:", "/", ".")):
                raise ToolchainError(
                    f"{name} is a folder of this machine ({address}), which a build cannot see",
                    hint="serve it over http, or name folders of wheels in UV_FIND_LINKS: the "
                    "locked ones among them are handed to the build",
                )


def _find_links(text: str) -> tuple[list[Path], list[str]]:
    """The local folders among uv's ``UV_FIND_LINKS``, and its value in the build, as a list."""
    folders, links = [], []
    for entry in re.split(r"[,\s]+", text.strip()) if text.strip() else ():
        if entry.startswith("file:"):
            folders.append(Path(unquote(urlsplit(entry).path)))
        elif "://" in entry:
            links.append(entry)
        else:
            folders.append(Path(entry).absolute())
    return folders, [*links, *([WHEELS] if folders else [])]

"""The first Python of another host, looked at and installed there by ``sh`` and uv alone.

The host is looked at by it, and the environments there are made of it: it lies where
:func:`saf_env.provision.interpreters.ensure_interpreter` looks for it. uv verifies its archive; the
digests of its files are written down beside it, and it is believed as long as they are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saf_env import probe
from saf_env.lock.downloads import Build
from saf_env.lock.model import Interpreter
from saf_env.plan.build import agent_python
from saf_env.provision.digests import DIGESTS, parse
from saf_env.provision.failures import failed, reaches_nothing
from saf_env.provision.interpreters import folder_name, is_made, marker_of, other_inside
from saf_env.transports.base import FileTransport

_PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
_LOOKING = 120.0  # 100 MB are read
_INSTALLING = 3600.0

# Bytecode is Python's own to write anew. Who has joined from there has installed without `sums`,
# and may run by what is there.
_LOOK = f"""
code=$1 folder=$2 python=$3 link=$4; shift 4
{DIGESTS}
[ ! -d "$code" ] || echo code
[ "$(readlink "$link")" != "$python" ] || echo linked
cd -- "$folder" 2>/dev/null || exit 0
echo "marker $(cat {probe.MARKER} 2>/dev/null)"
[ ! -e sums ] || {{ sha256sum -c sums || shasum -a 256 -c sums; }} >/dev/null 2>&1 || exit 0
if "$python" -I -S -c "" >/dev/null 2>&1; then echo sound; fi
"""
_INSTALL = f"""
set -eu
folder=$1 uv=$2 key=$3 row=$4 python=$5 version=$6 marker=$7 link=$8 trial=$9
rm -rf -- "$folder"
mkdir -p -- "$folder"
printf %s "$row" >"$UV_PYTHON_DOWNLOADS_JSON_URL"
"$uv" python install --no-bin --no-config "$key"
found=$("$python" -I -S -c 'import sys
print(sys.implementation.name, ".".join(str(part) for part in sys.version_info[:3]))')
if [ "$found" != "cpython $version" ]; then echo "other $found"; exit 1; fi
cd -- "$folder"
# Nothing is installed: the index is asked for one package.
if [ -n "$trial" ]; then
    printf '%s\\n' "$trial" | "$uv" pip install --dry-run --no-config \
        --python "$python" --target trial --require-hashes --only-binary :all: --no-deps \
        -r - >said 2>&1 &
fi
find "$key" -type f ! -name "*.pyc" -exec sh -c '
    sha256sum -- "$@" 2>/dev/null || shasum -a 256 -- "$@"
' sh {{}} + >sums
printf %s "$marker" >{probe.MARKER}.new
mv -f -- {probe.MARKER}.new {probe.MARKER}
ln -sfn -- "$python" "$link"
if [ -n "$trial" ] && ! wait "$!"; then cat said; fi
rm -rf said trial
"""


@dataclass(frozen=True)
class Seen:
    """What a host has of what is sent to it.

    Attributes:
        digests: of the files asked for, empty for one that is not there.
        code: whether our own code is there.
        sound: whether the interpreter is there, every file as it was installed.
        linked: whether it is the one by which the host is looked at.
    """

    digests: Sequence[str]
    code: bool
    sound: bool
    linked: bool


@dataclass(frozen=True)
class Place:
    """Where an interpreter lies on a host.

    Attributes:
        home: absolute path of the folder that saf-env has there.
        interpreter: which; an address that is a path begins at ``home``.
    """

    home: PurePosixPath
    interpreter: Interpreter

    @property
    def folder(self) -> PurePosixPath:
        """All of it."""
        return self.home / ".saf" / "python" / folder_name(self.interpreter)

    @property
    def binary(self) -> str:
        """The path of the binary in the folder."""
        minor = self.interpreter.version.rpartition(".")[0]
        return f"{self.build.row()[0]}/bin/python{minor}"

    @property
    def python(self) -> str:
        """The binary's absolute path."""
        return str(self.folder / self.binary)

    @property
    def link(self) -> str:
        """What everything else calls it by."""
        return str(self.home / agent_python(Path()))

    @property
    def build(self) -> Build:
        """What uv is told of it."""
        one = self.interpreter
        url = one.url if "://" in one.url else (self.home / one.url).as_uri()
        return Build(one.platform, one.version, one.build, url, one.sha256)


def look(
    way: FileTransport, place: Place, code: PurePosixPath, files: Sequence[PurePosixPath]
) -> Seen:
    """Look at a host, in one call.

    Args:
        way: to it.
        place: of its interpreter.
        code: the folder of our code there.
        files: whose digests are asked for.

    Raises:
        HostUnreachableError: it cannot be reached.
    """
    words = [str(code), str(place.folder), place.python, place.link, *map(str, files)]
    said = way.run(["sh", "-c", _LOOK, "sh", *words], env=_PATH, timeout=_LOOKING)
    digests, lines = parse(said.stdout, len(files))
    try:
        marker = json.loads(next(x for x in lines if x.startswith("marker ")).partition(" ")[2])
        made = is_made(place.interpreter, marker)
    except (StopIteration, ValueError, AttributeError):
        made = False
    return Seen(digests, "code" in lines, made and "sound" in lines, "linked" in lines)


def install(
    way: FileTransport, place: Place, uv: str, variables: Mapping[str, str], trial: str
) -> bool:
    """Install the interpreter in its place, whatever is there.

    Args:
        way: to the host.
        place: where.
        uv: the binary there.
        variables: what uv's settings are there.
        trial: a requirement for which the index is asked meanwhile; empty for none.

    Returns:
        Whether it has turned out that the host reaches no index.

    Raises:
        HostUnreachableError: the connection was lost.
        ToolchainError: it cannot be had exactly as locked.
    """
    one = place.interpreter
    key, row = place.build.row()
    table = place.folder / "downloads.json"
    settings = {
        **variables,
        "UV_CACHE_DIR": str(place.home / ".saf" / "cache" / "uv"),
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "manual",
        "UV_PYTHON_DOWNLOADS_JSON_URL": str(table),
        "UV_PYTHON_INSTALL_DIR": str(place.folder),
    }
    words = [str(place.folder), uv, key, json.dumps({key: row}), place.python, one.version]
    words += [json.dumps(marker_of(one, place.binary)), place.link, trial]
    done = way.run(["sh", "-c", _INSTALL, "sh", *words], env=settings, timeout=_INSTALLING)
    if done.stdout.startswith("other "):
        raise other_inside(one, done.stdout.partition(" ")[2].strip())
    if not done.ok:
        raise failed(f"get CPython {one.version} from {one.url}", done)
    return reaches_nothing(done.stdout)


def relink(way: FileTransport, place: Place) -> None:
    """Let the host be looked at by the interpreter that is there."""
    way.run(["ln", "-sfn", place.python, place.link], env=_PATH, timeout=30.0)

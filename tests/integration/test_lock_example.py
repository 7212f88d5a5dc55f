"""The lock of the example: three platforms, proven from whichever machine runs this."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import saf_env
from saf_env.lock import files
from saf_env.lock.make import make
from saf_env.lock.packages import packages_for
from saf_env.lock.proof import proof
from saf_env.platforms import PLATFORMS
from saf_env.spec.parse import parse
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv, cache_root, find_uv

ROOT = Path(saf_env.__file__).parent.parent
STUDIO = parse((ROOT / "examples" / "studio.toml").read_text(encoding="utf-8"))
ALL = tuple(sorted(PLATFORMS))


def uv_for(home: Path) -> Uv:
    """The project's uv with its cache, working for the project folder ``home``."""
    environ = {**os.environ, "SAF_ENV_CACHE": str(cache_root(ROOT))}
    return Uv(LocalTransport(), find_uv(ROOT).binary, home, environ)


def test_the_example_is_locked_for_three_platforms() -> None:
    assert files.freshness(STUDIO, ROOT) == []
    locked = files.read(ROOT, "studio")
    assert set(locked.environments) == {"base", "driver", "mlx"}
    interpreters = locked.toolchains["driver"].interpreters
    assert set(interpreters) == set(ALL)
    assert {i.source for i in interpreters.values()} == {"managed"}
    assert len({i.sha256 for i in interpreters.values()}) == len(ALL)
    assert {row["sha256"] for row in locked.downloads.values()} == {  # type: ignore[index]
        i.sha256 for i in interpreters.values()
    }


@pytest.mark.parametrize(
    ("environment", "platform"),
    [
        ("base", "linux-arm64"),
        ("driver", "linux-arm64"),
        ("driver", "linux-x86_64"),
        ("driver", "macos-arm64"),
        ("mlx", "linux-x86_64"),
        ("mlx", "macos-arm64"),
    ],
)
def test_every_wheel_of_the_example_exists(environment: str, platform: str, tmp_path: Path) -> None:
    locked = files.read(ROOT, "studio")
    text = locked.environments[environment].text
    expected = packages_for(text, platform, locked.python)
    assert proof(locked, uv_for(tmp_path), environment, platform) == len(expected)
    assert ("mlx-metal" in expected) == (environment == "mlx" and platform == "macos-arm64")


def test_the_example_gives_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    rows = ROOT / "lockfiles" / "studio" / files.DOWNLOADS
    for name in ("one", "a b é"):
        home = tmp_path / name
        home.mkdir()
        made = make(STUDIO, home, uv_for(home), downloads=rows, notify=print)
        assert made.written
    one, other = (content(tmp_path / name) for name in ("one", "a b é"))
    assert one == other
    again = make(STUDIO, home, uv_for(home), upgrade_packages=["numpy"], notify=print)
    assert not again.written
    assert content(home) == one


def content(home: Path) -> dict[str, bytes]:
    """Every file below ``lockfiles`` of ``home``."""
    folder = home / "lockfiles"
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saf_env import bootstrap
from saf_env.errors import ToolchainError
from saf_env.platforms import PLATFORMS
from saf_env.transports.local import LocalTransport
from saf_env.uv import (
    OWN_FILES,
    Uv,
    cache_root,
    find_uv,
    own_folder,
    pinned_version,
    pinned_wheels,
    uv_binary,
)

HOME = Path("/project")


def variables(**environ: str) -> dict[str, str]:
    return Uv(LocalTransport(), Path("/uv"), HOME, environ).variables()


def test_uv_gets_our_folders_and_nothing_of_the_users_python() -> None:
    given = variables(HOME="/home/u", PYTHONPATH="/evil", VIRTUAL_ENV="/venv", UV_EXCLUDE_NEWER="x")
    assert given["UV_CACHE_DIR"] == "/project/.saf/cache/uv"
    assert given["UV_PYTHON_INSTALL_DIR"] == "/project/.saf/python"
    assert given["HOME"] == "/home/u"
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "UV_EXCLUDE_NEWER"} & set(given)


def test_index_proxy_and_certificates_are_passed() -> None:
    wanted = {
        "UV_DEFAULT_INDEX": "https://mirror.test/simple",
        "UV_INDEX_CORP_USERNAME": "u",
        "UV_INDEX_CORP_PASSWORD": "p",
        "HTTPS_PROXY": "http://proxy.test:3128",
        "SSL_CERT_FILE": "/ca.pem",
    }
    assert wanted.items() <= variables(**wanted).items()


def test_the_cache_can_be_elsewhere() -> None:
    assert cache_root(HOME, {"SAF_ENV_CACHE": "/cache"}) == Path("/cache")
    assert cache_root(HOME, {"SAF_ENV_CACHE": "a/b"}) == HOME / "a" / "b"
    assert cache_root(HOME, {"SAF_ENV_CACHE": ""}) == HOME / ".saf" / "cache"


def test_the_pin_has_a_wheel_for_every_platform() -> None:
    assert set(pinned_wheels()) == set(PLATFORMS)
    assert len(set(pinned_wheels().values())) == len(PLATFORMS)
    assert all(part.isdigit() for part in pinned_version().split("."))


def test_uv_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    with pytest.raises(ToolchainError, match=f"uv {pinned_version()} is neither") as caught:
        find_uv(tmp_path, {"PATH": ""})
    assert "`make`" in caught.value.hint
    binary = uv_binary(tmp_path)
    binary.parent.mkdir(parents=True)
    binary.touch()
    assert find_uv(tmp_path, {"PATH": ""}).binary == binary


def test_uv_beside_our_own_python_serves_other_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = uv_binary(tmp_path / "saf-env")
    binary.parent.mkdir(parents=True)
    binary.touch()
    tool = tmp_path / "saf-env" / ".saf" / "tool" / "bin"
    tool.mkdir(parents=True)
    (tool / "uv").symlink_to(binary)
    monkeypatch.setattr(sys, "executable", str(tool / "python"))
    assert find_uv(tmp_path / "other", {"PATH": ""}).binary == tool / "uv"


def test_a_stalled_uv_is_a_fault_of_the_toolchain(stalled_uv: Uv) -> None:
    with pytest.raises(ToolchainError) as caught:
        stalled_uv.run(["pip", "install", "--offline", "six"], timeout=7.0)
    assert caught.value.exit_code == 3
    assert caught.value.message == "alpha: `uv pip install` did not finish within 7 s"
    assert "proxy" in caught.value.hint


def test_our_folder_is_none_of_gits_and_ends_uvs_search(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    assert folder == tmp_path / ".saf"
    assert {path.name for path in folder.iterdir()} == set(OWN_FILES)
    assert (folder / ".gitignore").read_text() == "*\n"
    (folder / ".gitignore").write_text("*\n!runs\n")
    folder.chmod(0o500)
    assert own_folder(tmp_path) == folder  # what is there needs no writing
    assert (folder / ".gitignore").read_text() == "*\n!runs\n"
    folder.chmod(0o700)


def test_our_folder_that_cannot_be_made_is_a_clear_error(stalled_uv: Uv) -> None:
    (stalled_uv.home / ".saf").write_text("")
    with pytest.raises(ToolchainError, match=r"cannot write in .*: File exists"):
        stalled_uv.run(["venv"])


def test_bootstrap_makes_the_same_folder() -> None:
    assert bootstrap.OWN_FILES == OWN_FILES

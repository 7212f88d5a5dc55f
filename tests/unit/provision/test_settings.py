"""What of the user's settings reaches a build, and how."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from saf_env.errors import ToolchainError
from saf_env.provision.settings import WHEELS, Settings, settings
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv


def of(tmp_path: Path, **environ: str) -> Settings:
    folder = tmp_path / "private"
    folder.mkdir(exist_ok=True)
    variables = {"HOME": str(tmp_path), **environ}
    return settings(Uv(LocalTransport(), Path("/uv"), tmp_path, variables), folder)


def values(found: Settings) -> dict[str, Any]:
    words = shlex.split(found.text)
    assert words[::2] == ["export"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def test_without_settings_there_are_none(tmp_path: Path) -> None:
    assert of(tmp_path) == Settings("", {}, [], loopback=False)


def test_index_and_credentials_go_in_whatever_they_hold(tmp_path: Path) -> None:
    given = {
        "UV_DEFAULT_INDEX": "https://a:p'w\"$(id)@index.example/simple",
        "UV_INDEX_CORP_PASSWORD": "one\ntwo",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "UV_INDEX_NOT-A-NAME": "x",
        "AWS_SECRET": "x",
    }
    found = values(of(tmp_path, **given))
    assert found == {k: given[k] for k in list(given)[:3]}


def test_paths_of_this_machine_become_those_of_the_build(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", ".netrc"):
        (tmp_path / name).write_text(name, encoding="ascii")
    (tmp_path / "conf" / "uv").mkdir(parents=True)
    (tmp_path / "conf" / "uv" / "uv.toml").write_text('index-url = "https://x/"', encoding="ascii")
    found = of(
        tmp_path,
        SSL_CERT_FILE=f"{tmp_path}/ca.pem",
        SSL_CERT_DIR="/nowhere",
        SSL_CLIENT_CERT=f"{tmp_path}/client.pem",
        XDG_CONFIG_HOME=f"{tmp_path}/conf",
    )
    assert values(found) == {
        "SSL_CERT_FILE": "/tmp/reach/certificates",
        "SSL_CLIENT_CERT": "/tmp/reach/client-certificate",
        "NETRC": "/tmp/reach/netrc",
    }
    assert found.files == {
        "certificates": tmp_path / "ca.pem",
        "client-certificate": tmp_path / "client.pem",
        "netrc": tmp_path / ".netrc",
        "uv-user": tmp_path / "conf" / "uv" / "uv.toml",
    }


def test_a_folder_of_certificates_becomes_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "a.crt").write_text("A", encoding="ascii")
    (folder / "b.pem").symlink_to("a.crt")
    (folder / "c.pem").write_text("C", encoding="ascii")
    found = of(tmp_path, SSL_CERT_DIR=str(folder))
    assert sorted(found.files["certificates"].read_text("ascii").split()) == ["A", "C"]
    assert values(found) == {"SSL_CERT_FILE": "/tmp/reach/certificates"}


def test_local_folders_of_wheels_are_handed_in(tmp_path: Path) -> None:
    found = of(tmp_path, UV_FIND_LINKS=f"{tmp_path}/w https://x/y file://{tmp_path}/a%20b")
    assert values(found) == {"UV_FIND_LINKS": f"https://x/y,{WHEELS}"}
    assert list(found.wheel_folders) == [tmp_path / "w", tmp_path / "a b"]


@pytest.mark.parametrize("value", ["file:///opt/pypi", "corp=file:///opt/pypi", "/opt/pypi"])
def test_an_index_that_is_a_folder_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ToolchainError, match="folder of this machine") as caught:
        of(tmp_path, UV_DEFAULT_INDEX=value)
    assert "UV_FIND_LINKS" in caught.value.hint


def test_a_secret_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"x" * 600_000)
    with pytest.raises(ToolchainError, match="500 kB"):
        of(tmp_path, SSL_CERT_FILE=f"{tmp_path}/ca.pem")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("http://127.0.0.1:3141/simple", True),
        ("http://user:pw@localhost/simple", True),
        ("http://[::1]:80/", True),
        ("http://localhost.example/", False),
        ("https://10.127.0.1/", False),
    ],
)
def test_addresses_of_this_machine_are_known(tmp_path: Path, address: str, loopback: bool) -> None:
    assert of(tmp_path, UV_DEFAULT_INDEX=address).loopback is loopback

"""What containers are handed: readable by their user, and by nobody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from saf_env.errors import BringUpError
from saf_env.provision.handing import IMAGE_USER, hand_over, hand_over_there
from saf_env.transports.base import FileTransport
from saf_env.transports.local import LocalTransport

ROOT = os.geteuid() == 0


class Way(LocalTransport):
    """To a host that is this machine."""

    def put(self, source: Path, target: str, *, mode: int, timeout: float) -> None:
        Path(target).write_bytes(source.read_bytes())
        Path(target).chmod(mode)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "it's a $folder" / "token"
    file.parent.mkdir()
    file.write_text("s3cret")
    file.chmod(0o600)
    return file


def test_here_and_there_the_same_is_handed_over(token: Path) -> None:
    key = token.with_name("key")
    key.write_text("tskey")
    key.chmod(0o600)
    here = hand_over(token, None)
    there = hand_over_there(cast(FileTransport, Way("beta")), token, key)
    assert (there.user, there.token) == (here.user, here.token)
    assert there.auth_key == token.with_name("tailscale-key")
    assert there.auth_key.read_text() == "tskey"
    assert there.token.read_text() == "s3cret"
    seen = there.token.stat()
    owner, mode = (IMAGE_USER, 0o400) if ROOT else (os.geteuid(), 0o600)
    assert (seen.st_uid, seen.st_mode & 0o777) == (owner, mode)
    assert here.user == f"{seen.st_uid}:{seen.st_gid}"
    assert not list(token.parent.glob("*.new"))


def test_a_host_without_the_token_is_told(tmp_path: Path) -> None:
    with pytest.raises(BringUpError, match="beta: the token cannot be handed") as caught:
        hand_over_there(cast(FileTransport, Way("beta")), tmp_path / "token", None)
    assert "there is no token in" in caught.value.message


def test_a_key_that_others_can_read_goes_nowhere(token: Path) -> None:
    key = token.with_name("key")
    key.write_text("tskey")
    key.chmod(0o644)
    for give in (lambda: hand_over(token, key), lambda: hand_over_there(_way(), token, key)):
        with pytest.raises(BringUpError, match="others can read"):
            give()
    assert not token.with_name("tailscale-key").exists()


def _way() -> FileTransport:
    return cast(FileTransport, Way("beta"))

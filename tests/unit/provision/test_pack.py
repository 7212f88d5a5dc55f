"""Archives of interpreters: what may be in them, and who they say that they were."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.provision import pack as packing
from saf_env.provision.pack import check_members
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv


def archive(path: Path, **fields: object) -> Path:
    member = tarfile.TarInfo("python/bin/x")
    for name, value in fields.items():
        setattr(member, name, value)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../x"},
        {"name": "python/../../x"},
        {"name": "python/x", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "python/x", "type": tarfile.SYMTYPE, "linkname": "../../x"},
        {"name": "python/x", "type": tarfile.LNKTYPE, "linkname": "../x"},
        {"name": "python/x", "type": tarfile.CHRTYPE},
        {"name": "python/x", "type": tarfile.FIFOTYPE},
    ],
)
def test_members_that_lead_out_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(ToolchainError, match="members that no interpreter has"):
        check_members(archive(tmp_path / "a.tar.gz", **fields))


@pytest.mark.parametrize("link", ["python3.13", "../lib/x"])
def test_links_inside_are_fine(tmp_path: Path, link: str) -> None:
    check_members(archive(tmp_path / "a.tar.gz", type=tarfile.SYMTYPE, linkname=link))


@pytest.mark.parametrize("data", [b"", b"<html>captive portal</html>", b"\x1f\x8b\x08\x00"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(ToolchainError, match="is no archive"):
        check_members(tmp_path / "a.tar.gz")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    data = archive(tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[:-20])
    with pytest.raises(ToolchainError, match="is no archive"):
        check_members(tmp_path / "a.tar.gz")


def test_glibc_and_what_is_missing_are_told_from_the_rest() -> None:
    said = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n"
        "\tlibgone.so.2 => not found\n"
        "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n"
        "\tlibnsl.so.2 => /lib/libnsl.so.2 (0x00007f)\n"
        "\tlibnsl.so.1 => /lib/libnsl.so.1 (0x00007f)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
    )
    assert packing._needed(said) == {
        "libz.so.1": "/lib/x86_64-linux-gnu/libz.so.1",
        "libgone.so.2": "",
        "libnsl.so.2": "/lib/libnsl.so.2",
    }


def test_a_mac_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    uv = Uv(LocalTransport(), Path("/uv"), tmp_path, {})
    with pytest.raises(ToolchainError, match="Linux") as caught:
        packing.pack(Path("/usr/bin/python3"), tmp_path / "p.tar.gz", uv, print)
    assert "--python-source managed" in caught.value.hint


class TestDigestOfAPack:
    ORIGINAL = "a" * 64

    @pytest.fixture
    def packed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder in which the running interpreter seems to lie, packed."""
        root = tmp_path / "python"
        (root / "bin").mkdir(parents=True)
        binary = root / "bin" / "python3"
        shutil.copyfile(sys.executable, binary)
        (root / "lib").mkdir()
        (root / "lib" / "libssl.so.3").write_bytes(b"ssl")
        monkeypatch.setattr(probe, "base_interpreter", lambda: str(binary))
        monkeypatch.setattr(probe, "shared_library", lambda _: "")
        self.note(root, "bin/python3", "lib/libssl.so.3")
        return root

    def note(self, root: Path, *names: str) -> None:
        files = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names}
        value = {"schema": 1, "interpreter_digest": self.ORIGINAL, "files": files}
        (root / probe.PACK).write_text(json.dumps(value), encoding="ascii")

    def own(self, root: Path) -> str:
        return hashlib.sha256((root / "bin" / "python3").read_bytes()).hexdigest()

    def test_it_is_that_of_the_original(self, packed: Path) -> None:
        assert probe.interpreter_digest() == self.ORIGINAL

    @pytest.mark.parametrize("name", ["bin/python3", "lib/libssl.so.3"])
    def test_it_is_its_own_once_a_file_has_changed(self, packed: Path, name: str) -> None:
        with (packed / name).open("ab") as file:
            file.write(b"\0")
        assert probe.interpreter_digest() == self.own(packed)

    def test_it_is_its_own_when_the_note_leaves_out_the_binary(self, packed: Path) -> None:
        self.note(packed, "lib/libssl.so.3")
        assert probe.interpreter_digest() == self.own(packed)

    def test_it_is_its_own_when_a_file_is_gone(self, packed: Path) -> None:
        (packed / "lib" / "libssl.so.3").unlink()
        assert probe.interpreter_digest() == self.own(packed)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {}}'])
    def test_a_damaged_note_is_none(self, packed: Path, text: str) -> None:
        (packed / probe.PACK).write_text(text, encoding="ascii")
        assert probe.interpreter_digest() == self.own(packed)

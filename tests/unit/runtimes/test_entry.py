"""What a container does before its node starts."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saf_env import probe
from saf_env.plan import fingerprint
from saf_env.runtimes import entry, services
from saf_env.runtimes.entry import clear

PACKAGES = {"idna": "3.10", "six": "1.17"}
INTERPRETER = {"version": "3.13.0", "build": "b", "digest": "d" * 64}
SOUND: dict[str, Any] = {kind: [0, []] for kind in ("changed", "missing", "foreign")}


class Image:
    """An environment as an image has it, and what the probe sees of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        folders: dict[str, Any] = {"": [0, 0, {}], "lib": [0, 0, {"six.py": [5, 0, 0, "x", 1]}]}
        (root / "lib").mkdir(parents=True)
        (root / "lib" / "six.py").write_text("six=6")
        (root / "lib" / "six.py").chmod(0o755)
        (root / probe.MANIFEST).write_text(json.dumps({"schema": 1, "folders": folders}))
        for path in (root / "lib" / "six.py", root / "lib", root):
            os.utime(path, ns=(entry.IMAGE_TIME, entry.IMAGE_TIME))
        marker = {"packages": PACKAGES, "manifest_sha256": "m"}
        self.facts: dict[str, Any] = {
            "interpreter": INTERPRETER,
            "environment": {"path": str(root), "marker": marker},
            "packages": list(PACKAGES.items()),
        }
        self.files: dict[str, Any] = {**SOUND, "manifest_sha256": "m"}
        self.unknown: dict[str, str] = {}
        self.hashed = False

    def gather(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["only"] == ["files"]:
            self.hashed = True
            return {"facts": {"files": self.files} if self.files else {}, "unknown": self.unknown}
        known = {name: self.facts[name] for name in request["only"] if name in self.facts}
        return {"facts": known, "unknown": self.unknown}


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    made = Image(tmp_path / "env")
    monkeypatch.setattr(sys, "path", [*sys.path])
    fake = SimpleNamespace(gather=made.gather, MANIFEST=probe.MANIFEST)
    monkeypatch.setitem(sys.modules, "probe", fake)
    monkeypatch.setitem(sys.modules, "fingerprint", fingerprint)
    monkeypatch.setenv(entry.PLANNED, fingerprint.actual_fingerprint(made.facts))
    return made


def test_what_was_planned_may_start_and_no_file_is_read(image: Image) -> None:
    assert entry.refused() == []
    assert not image.hashed


def test_another_fingerprint_may_not_start(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    image.facts["packages"] = [["idna", "3.9"], ["idna", "3.10"], ["new", "1"]]
    first, *packages = entry.refused()
    assert first.startswith("its fingerprint is ")
    assert packages == [
        "idna is 3.9 and 3.10, the image was built with 3.10",
        "new is 1, the image was built with none",
        "six is missing, the image was built with 1.17",
    ]
    image.facts["packages"] = list(PACKAGES.items())
    image.facts["interpreter"] = {**INTERPRETER, "build": "other"}
    assert len(entry.refused()) == 1
    monkeypatch.delenv(entry.PLANNED)
    assert "planned is none" in entry.refused()[0]


def test_what_cannot_be_seen_may_not_start(image: Image) -> None:
    del image.facts["environment"]
    image.unknown = {"environment": "no pyvenv.cfg"}
    assert entry.refused() == ["its environment cannot be seen: no pyvenv.cfg"]


@pytest.mark.parametrize("change", ["time", "size", "mode", "new", "gone", "folder", "manifest"])
def test_what_may_have_changed_is_hashed(image: Image, change: str) -> None:
    place = image.root / "lib" / "six.py"
    if change in ("size", "time"):
        place.write_text("six=7" if change == "time" else "six = 6")
    if change == "size":
        os.utime(place, ns=(entry.IMAGE_TIME, entry.IMAGE_TIME))
    if change == "mode":
        place.chmod(0o644)
    if change == "new":
        (image.root / "lib" / "five.py").touch()
    if change in ("gone", "folder"):
        place.unlink()
        os.utime(image.root / "lib", ns=(entry.IMAGE_TIME, entry.IMAGE_TIME))
    if change == "folder":
        (image.root / "lib").rmdir()
    if change == "manifest":
        (image.root / probe.MANIFEST).write_text("{")

    assert entry.refused() == [], "the hashes decide"
    assert image.hashed


def test_files_that_are_not_as_they_were_built_may_not_start(image: Image) -> None:
    (image.root / "lib" / "six.py").write_text("six=7")
    image.files |= {"changed": [1, ["lib/six.py"]], "foreign": [7, list("abcdef")]}
    assert entry.refused() == [
        "1 of its files is changed: lib/six.py",
        "7 of its files are in no package: a, b, c, d, e",
    ]
    image.files["manifest_sha256"] = "other"
    assert entry.refused() == ["the manifest of its files was changed"]
    image.files, image.unknown = {}, {"files": "no such file"}
    assert "its files cannot be compared: no such file" in entry.refused()


def test_a_node_that_is_refused_starts_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["entry.py", "--wait", "head", "1", "--", "ray"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(entry, "allow_open_files", lambda: None)
    monkeypatch.setattr(entry, "refused", lambda: ["idna is 3.9"])
    monkeypatch.setenv(entry.CONTAINER, "saf-1/box")

    assert entry.main() == entry.REFUSED == services.REFUSED

    first, reason, remedy = capsys.readouterr().err.splitlines()
    assert first == "saf-env: box is not started: its image is not what was planned"
    assert reason == "saf-env:     idna is 3.9"
    assert "`saf-env check --fix`, then `saf-env up`" in remedy


def session(folder: Path, name: str) -> Path:
    made = folder / f"session_{name}"
    for inside in ("logs", "ray_spilled_objects", "sockets"):
        (made / inside).mkdir(parents=True)
        (made / inside / "file").touch()
    (made / "ports.json").touch()
    (made / "sockets" / "link").symlink_to("/nowhere")
    return made


def test_of_earlier_sessions_the_last_logs_stay(tmp_path: Path) -> None:
    last = session(tmp_path, "2026-11-24_17-09-50_1_1")
    session(tmp_path, "2026-11-23_18-00-00_1_1")
    session(tmp_path, "2025-12-31_23-59-59_1_1")
    (tmp_path / "session_latest").symlink_to(last)
    (tmp_path / "other").touch()
    (tmp_path / "session_file").touch()

    clear(str(tmp_path))

    assert sorted(os.listdir(tmp_path)) == ["other", last.name, "session_file", "session_latest"]
    assert os.listdir(last) == ["logs"]
    assert os.listdir(last / "logs") == ["file"]


def test_a_new_volume_is_left_alone(tmp_path: Path) -> None:
    clear(str(tmp_path))
    assert os.listdir(tmp_path) == []

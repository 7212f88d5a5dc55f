"""What a container does before its node starts."""

from __future__ import annotations

import os
from pathlib import Path

from saf_env.runtimes.entry import clear


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

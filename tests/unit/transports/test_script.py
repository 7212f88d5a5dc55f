"""What is sent to run a file of ours elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from saf_env.transports.script import script

SOURCE = """
from __future__ import annotations
import json, sys
if __name__ == "__main__":
    print(json.dumps({"read": json.load(sys.stdin), "me": "é"}))
"""


def test_the_file_goes_in_first_and_reads_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tool.py"
    file.write_text(SOURCE, encoding="utf-8")
    request: dict[str, Any] = {"text": "a\nb \u2028 '\"$x", "number": 1}

    argv, stdin = script("/usr/bin/python3", file, request)

    assert argv[:3] == ["/usr/bin/python3", "-I", "-S"]
    assert argv[-1] == "saf-env/tool.py"
    assert stdin.isascii()
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    monkeypatch.setattr(sys, "argv", ["-c", argv[-1]])
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(argv[-2], {"__name__": "__main__"})
    assert json.loads(said.getvalue()) == {"read": request, "me": "é"}


def test_other_options(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("", encoding="utf-8")
    assert script(Path("/p"), tmp_path / "x.py", {}, ("-I",))[0][:3] == ["/p", "-I", "-c"]

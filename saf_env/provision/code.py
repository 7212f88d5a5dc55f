"""saf-env's own files, and what they need elsewhere, as one zip file that a bare Python runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import saf_env


def sources(*others: ModuleType) -> bytes:
    """saf-env and the packages ``others`` as a zip file; the same bytes every time."""
    return _zipped((saf_env, *others), {})


def program(main: str, *others: ModuleType) -> bytes:
    """The same as a program: a Python that is given the file runs the text ``main``."""
    return _zipped((saf_env, *others), {"__main__.py": main})


def _zipped(modules: Sequence[ModuleType], more: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in modules:
            root = Path(str(module.__file__)).parent
            for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".txt", ".json")):
                name = f"{module.__name__}/{path.relative_to(root).as_posix()}"
                _add(archive, name, path.read_bytes())
        for name, text in more.items():
            _add(archive, name, text.encode())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # of 1980: the same bytes every time
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED)

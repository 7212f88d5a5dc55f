"""How mistakes are worded: key paths, values and the nearest known word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any


def key_path(parts: Iterable[str | int]) -> str:
    """``["nodes", 1, "kind"]`` as ``nodes[1].kind``."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{_key(str(part))}"
    return path.lstrip(".") or "the file"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def close_word(word: str, known: Sequence[str]) -> str:
    """The one of ``known`` that looks most like ``word``, or nothing."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1)), "")


def nearest(key: str, known: Sequence[str], kind: str = "keys") -> str:
    """The known word that ``key`` was meant to be, or all of them."""
    close = close_word(key, known)
    return f"did you mean {close!r}?" if close else f"known {kind} are {', '.join(known)}"


def shown(value: Any) -> str:
    """A value as the file has it, short, with nothing in it that a terminal would act on."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Findings as people read them: by area, the worst first, under each what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saf_env.cli.output import columns, console, printable
from saf_env.preflight.base import Finding, Level, together
from saf_env.preflight.registry import AREAS, may_join, stopping, unexplained

ORDER: tuple[Level, ...] = ("fail", "warn", "skip", "ok")
"""Levels, the worst first."""

_TEXT_WIDTH = 36
"""Columns below which the text of a finding goes below its name and not beside it."""

_NAMES_WIDTH = 24


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        text: of it.
        level: of the finding that begins here, a word of the text; empty anywhere else.
        area: whether it is the name of an area.
    """

    text: str
    level: str = ""
    area: bool = False


def show(found: Sequence[Finding]) -> None:
    """Print the findings that are not in order, and the verdict."""
    from rich.text import Text

    from saf_env.cli.output import STYLES

    screen = console()
    for line in lines(found, columns()):
        text = Text(line.text, style="bold" if line.area else "")
        if line.level:
            at = line.text.index(line.level)
            text.stylize(STYLES[line.level], at, at + len(line.level))
        screen.print(text, no_wrap=True, overflow="ignore", crop=False)
    print(textwrap.fill(verdict(found), columns(), break_on_hyphens=False))


def lines(found: Sequence[Finding], width: int) -> list[Line]:
    """The findings that are not in order, as lines of at most ``width`` columns."""
    stops = [f for f in stopping(found) if f.level == "skip"]
    told = together([_with_a_way_out(f, stops) for f in unexplained(found) if f.level != "ok"])
    told.sort(key=lambda one: ORDER.index(one[0].level))
    by_area = {
        area: [(finding, names) for finding, names in told if finding.id in ids]
        for area, ids in AREAS.items()
    }
    areas = [area for area, there in by_area.items() if there]
    areas.sort(key=lambda area: ORDER.index(by_area[area][0][0].level))
    layout = _Layout(told, width)
    shown: list[Line] = []
    for area in areas:
        shown.append(Line(area, area=True))
        for finding, names in by_area[area]:
            shown += layout.of(finding, names)
    return shown


def _with_a_way_out(finding: Finding, stops: Sequence[Finding]) -> Finding:
    """A finding that stops a join for want of facts says what to do, too."""
    if finding not in stops:
        return finding
    hint = f"what cannot be judged stops a join; --ignore {finding.id} does without"
    return Finding(**{**vars(finding), "hint": hint})


class _Layout:
    """Where the parts of findings stand: side by side, or below each other where it is narrow."""

    def __init__(self, told: Sequence[tuple[Finding, str]], width: int) -> None:
        self._width = width
        self._id = max((len(finding.id) for finding, _ in told), default=0)
        self._names = max((len(_short(names)) for _, names in told), default=0)
        self._beside = len("  warn  ") + self._id + 2 + self._names + 2
        self._narrow = width - self._beside < _TEXT_WIDTH

    def of(self, finding: Finding, names: str) -> Iterator[Line]:
        """The lines of one finding."""
        short = _short(names)
        parts = [f"{finding.summary}: {finding.evidence}" if finding.evidence else finding.summary]
        parts += [f"on {names}"] if short != names else []
        parts += [f"remedy: {finding.hint}"] if finding.hint else []
        if self._narrow:
            head = self._wrapped(f"{finding.level} {finding.id} on {short}", 2)
            yield Line(head[0], finding.level)
            yield from map(Line, head[1:])
            yield from (Line(text) for part in parts for text in self._wrapped(part, 4))
            return
        head_text = f"  {finding.level:<4}  {finding.id:<{self._id}}  {short:<{self._names}}  "
        texts = [text for part in parts for text in self._wrapped(part, self._beside)]
        yield Line(head_text + texts[0].lstrip(), finding.level)
        yield from map(Line, texts[1:])

    def _wrapped(self, text: str, indent: int) -> list[str]:
        """``text`` as indented lines; what is copied from them has no break at a hyphen."""
        blank = " " * indent
        plain = " ".join(printable(text).split())
        return textwrap.wrap(
            plain,
            self._width,
            initial_indent=blank,
            subsequent_indent=blank,
            break_on_hyphens=False,
        )


def _short(names: str) -> str:
    """Names of nodes that fit in a column, or how many they are."""
    return names if len(names) <= _NAMES_WIDTH else f"{names.count(',') + 1} nodes"


def verdict(found: Sequence[Finding]) -> str:
    """Whether the nodes may join, and how many findings there are of each level."""
    count = {level: sum(f.level == level for f in found) for level in ORDER}
    words = [f"{n} {level}" for level, n in count.items() if n]
    names = ", ".join(dict.fromkeys(f.node for f in found))
    return f"{names}: {'may join' if may_join(found) else 'may not join'} ({', '.join(words)})"


def changes(before: Sequence[Finding] | None, found: Sequence[Finding]) -> list[str]:
    """What is other than ``before``, a line for each finding; all that is amiss the first time.

    Numbers in the evidence, and in what is in order, are other each time: they do not count.
    """

    def gist(finding: Finding) -> tuple[str, str]:
        return finding.level, "" if finding.level == "ok" else finding.summary

    known = {(f.id, f.node): gist(f) for f in before or ()}
    other = [f for f in found if known.get((f.id, f.node), ("ok", "")) != gist(f)]
    shown = [f for f in unexplained(found) if f in other]
    told = [
        f"{names}: {f.level} {f.id}: {f.summary}{f': {f.evidence}' if f.evidence else ''}"
        for f, names in together(shown)
    ]
    told += [verdict(found)] if other or before is None else []
    return [" ".join(printable(text).split()) for text in told]

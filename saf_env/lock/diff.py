"""What a new lock changes, as lines for a reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from saf_env.lock.inputs import DRIVER
from saf_env.lock.model import Interpreter, Lock
from saf_env.lock.packages import Pin, parse


def changes(old: Lock | None, new: Lock) -> tuple[str, ...]:
    """The differences from ``old`` to ``new``, one line each; empty when there is no old lock."""
    if old is None:
        return ()
    return (
        *_tools(old, new),
        *_names("environment", old.environments, new.environments),
        *_names("node", old.toolchains, new.toolchains),
        *_packages(old, new),
    )


def _tools(old: Lock, new: Lock) -> Iterator[str]:
    if old.python != new.python:
        yield f"python {old.python} -> {new.python}"
    before, after = (lock.toolchains[DRIVER].interpreters for lock in (old, new))
    for platform in sorted({*before, *after}):
        one, other = before.get(platform), after.get(platform)
        if one != other:
            yield f"interpreter for {platform}: {_build(one)} -> {_build(other)}"
    versions = [{t.uv_version for t in lock.toolchains.values()} for lock in (old, new)]
    if versions[0] != versions[1]:
        yield f"uv {', '.join(sorted(versions[0]))} -> {', '.join(sorted(versions[1]))}"
    bases = [{t.base_image for t in lock.toolchains.values()} - {""} for lock in (old, new)]
    if bases[0] != bases[1]:
        yield f"base image {_base(bases[0])} -> {_base(bases[1])}"


def _base(images: Iterable[str]) -> str:
    return ", ".join(sorted(images)) or "none"


def _build(interpreter: Interpreter | None) -> str:
    if interpreter is None:
        return "none"
    return f"{interpreter.source} {interpreter.build} ({interpreter.sha256[:12]})"


def _names(what: str, old: Iterable[str], new: Iterable[str]) -> Iterator[str]:
    for name in sorted(set(new) - set(old)):
        yield f"{what} {name} added"
    for name in sorted(set(old) - set(new)):
        yield f"{what} {name} removed"


def _packages(old: Lock, new: Lock) -> list[str]:
    """One line for each change of a package, with the environments that it happens in."""
    where: dict[str, list[str]] = {}
    for name in sorted(set(old.environments) & set(new.environments)):
        before = _pins(old.environments[name].text)
        after = _pins(new.environments[name].text)
        for package in sorted({*before, *after}):
            line = _change(package, before.get(package, []), after.get(package, []))
            if line:
                where.setdefault(line, []).append(name)
    return [f"{line}  ({', '.join(names)})" for line, names in sorted(where.items())]


def _pins(text: str) -> Mapping[str, list[Pin]]:
    pins: dict[str, list[Pin]] = {}
    for pin in parse(text):
        pins.setdefault(pin.name, []).append(pin)
    return pins


def _change(package: str, before: list[Pin], after: list[Pin]) -> str:
    if before == after:
        return ""
    old, new = (", ".join(sorted({pin.version for pin in pins})) for pins in (before, after))
    if not before:
        return f"{package} {new} added"
    if not after:
        return f"{package} {old} removed"
    if old != new:
        return f"{package} {old} -> {new}"
    if {h for p in before for h in p.hashes} != {h for p in after for h in p.hashes}:
        return f"{package} {old}: other files"
    return f"{package} {old}: on other platforms"

"""Make a lock: choose the interpreters, resolve once, write all files or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.alone import nobody
from saf_env.engine import Engine
from saf_env.errors import LockError, UsageError
from saf_env.lock import files, store
from saf_env.lock.inputs import (
    DRIVER,
    cluster_platforms,
    environment_name,
    environment_platforms,
    has_containers,
    inputs,
    node_platforms,
)
from saf_env.lock.model import EnvironmentLock, Interpreter, Lock, Toolchain
from saf_env.lock.packages import Pin, normalised, parse, render
from saf_env.spec.model import ClusterSpec, PythonSource
from saf_env.uv import Uv, pinned_version, pinned_wheels

if TYPE_CHECKING:
    from saf_env.lock.interpreters import Choice


@dataclass(frozen=True)
class LockOutcome:
    """What :func:`make` did.

    Attributes:
        lock: the lock that is in place now.
        changes: what is different from the one before, one line each; empty for a first lock.
        written: whether files were written.
    """

    lock: Lock
    changes: tuple[str, ...]
    written: bool


@dataclass(frozen=True)
class _Order:
    """What :func:`make` was asked, and the inputs that the cluster file has now."""

    spec: ClusterSpec
    home: Path
    uv: Uv
    upgrade: bool
    upgrade_packages: Sequence[str]
    source: PythonSource | None
    downloads: Path | None
    notify: Callable[[str], None]
    wanted: Mapping[str, Any]

    @property
    def unasked(self) -> bool:
        """Whether a fresh lock is all that is wanted."""
        return not (self.upgrade or self.upgrade_packages or self.source or self.downloads)


@dataclass(frozen=True)
class _Old:
    """The lock found in place: ``lock`` is None when there is none or it is damaged."""

    lock: Lock | None
    locked: Mapping[str, Any]
    keep: Mapping[str, str]


def make(
    spec: ClusterSpec,
    home: Path,
    uv: Uv,
    *,
    upgrade: bool = False,
    upgrade_packages: Sequence[str] = (),
    python_source: PythonSource | None = None,
    downloads: Path | None = None,
    notify: Callable[[str], None],
) -> LockOutcome:
    """Lock ``spec``; without a reason to do anything, return the lock in place and run nothing.

    Versions are kept where the requirements still allow them, the interpreter too.

    Args:
        spec: the cluster file.
        home: the project folder, which holds ``lockfiles/``.
        uv: the pinned uv.
        upgrade: take the newest of everything, the interpreter included.
        upgrade_packages: take the newest of these packages.
        python_source: the one source to take the interpreter from.
        downloads: a table of interpreters in uv's format, instead of uv's own.
        notify: gets lines for the user: what could not be done the usual way.

    Raises:
        LockError: it cannot be resolved, or the lock in place must not be replaced.
        ToolchainError: no source has an interpreter as asked.
        UsageError: a package to upgrade is none of the cluster's.
        BusyError: another saf-env is locking the same cluster.
    """
    order = _Order(
        spec,
        home,
        uv,
        upgrade,
        upgrade_packages,
        python_source,
        downloads,
        notify,
        wanted=inputs(spec),
    )
    store.recover(home, spec.name)  # under the guard it would wait for itself
    if order.unasked and (present := _present(order)):
        return LockOutcome(present, (), written=False)
    with store.guard(home, spec.name, notify):
        if order.unasked and (present := _present(order)):
            return LockOutcome(present, (), written=False)  # the one that we waited for made it
        try:
            return _make(order, _old(order))
        except OSError as error:
            raise store.unwritable(home, error) from error


def _make(order: _Order, old: _Old) -> LockOutcome:
    choice = _choice(order, old)
    upgrade = order.upgrade or order.upgrade_packages
    asked = old.locked.get("containers") == order.wanted.get("containers")
    before = old.lock if asked and not order.upgrade else None
    with ThreadPoolExecutor(max_workers=1) as pool:  # a registry may be slow
        base = pool.submit(_base, order, before)
        if (
            old.lock
            and old.locked == order.wanted
            and not upgrade
            and _same(old.lock, choice)
            and _locked_base(order.spec, old.lock) == base.result()
        ):
            return LockOutcome(old.lock, (), written=False)
        pins = _pins(order, choice, {} if order.upgrade else old.keep)
        lock, texts = files.render(assemble(order.spec, choice, pins, base.result()), order.wanted)
    if old.lock and old.lock.sha256 == lock.sha256:
        return LockOutcome(old.lock, (), written=False)
    store.write(order.home, order.spec.name, texts)
    from saf_env.lock.diff import changes

    return LockOutcome(lock, changes(old.lock, lock), written=True)


def _present(order: _Order) -> Lock | None:
    """The lock in place, if it is whole and was made from what is wanted now."""
    try:
        lock, locked = files.read_with_inputs(order.home, order.spec.name)
    except LockError:
        return None
    if locked != order.wanted:
        return None
    # A base image that could not be had may be there by now; that it is not was said before.
    engine = Engine(order.uv.transport, order.uv.environ)
    if _lacks_base(order.spec, lock) and engine.answers():
        from saf_env.lock.images import pin_base

        return None if pin_base(order.spec.base_image, engine, nobody) else lock
    return lock


def _lacks_base(spec: ClusterSpec, lock: Lock) -> bool:
    return has_containers(spec) and not _locked_base(spec, lock)


def _locked_base(spec: ClusterSpec, lock: Lock) -> str:
    """The base image that ``lock`` has for the container nodes of ``spec``; empty for none."""
    known = (lock.toolchains.get(n.name) for n in spec.nodes if n.kind == "container")
    return next((t.base_image for t in known if t and t.base_image), "")


def _base(order: _Order, old: Lock | None) -> str:
    """The base image of container nodes by digest, that of ``old`` if it is still asked for."""
    if not has_containers(order.spec):
        return ""
    if old and (locked := _locked_base(order.spec, old)):
        return locked
    from saf_env.lock.images import pin_base

    return pin_base(
        order.spec.base_image, Engine(order.uv.transport, order.uv.environ), order.notify
    )


def _old(order: _Order) -> _Old:
    folder = store.lock_folder(order.home, order.spec.name)
    lock: Lock | None = None
    locked: Mapping[str, Any] = {}
    try:
        lock, locked = files.read_with_inputs(order.home, order.spec.name)
    except files.DamagedLockError as error:
        order.notify(f"{error.message}; making the lock anew")
    except LockError:
        if folder.exists():
            raise
    # Of a damaged lock the pins are still a good guess: uv looks up their digests anew.
    texts = [
        path.read_text("utf-8", "replace") for path in sorted(folder.glob("environments/*.txt"))
    ]
    return _Old(lock, locked, preferred(texts))


def preferred(texts: Sequence[str]) -> dict[str, str]:
    """Version by package of all that the requirements files ``texts`` agree on."""
    versions: dict[str, set[str]] = {}
    for pin in (pin for text in texts for pin in parse(text)):
        versions.setdefault(pin.name, set()).add(pin.version)
    return {name: min(found) for name, found in versions.items() if len(found) == 1}


def _choice(order: _Order, old: _Old) -> Choice:
    """The interpreters: those of the old lock if they are still asked for, else chosen anew."""
    from saf_env.lock.interpreters import Choice, Wish, choose

    if old.lock and not (order.upgrade or order.source or order.downloads) and _keeps(order, old):
        return Choice(old.lock.python, _interpreters(old.lock), old.lock.downloads)
    wish = Wish(
        python=order.spec.python,
        platforms=cluster_platforms(order.spec),
        home=order.home,
        source=order.source,
        downloads=order.downloads,
        prefer=old.lock.python if old.lock and not order.upgrade else "",
    )
    return choose(wish, order.uv, order.notify)


def _keeps(order: _Order, old: _Old) -> bool:
    """Whether the interpreters of the old lock serve the cluster file as it is now."""
    from saf_env.lock.system import find_system

    if old.lock is None or old.locked["python"] != order.wanted["python"]:
        return False
    before = _interpreters(old.lock)
    for interpreter in before.values():
        if interpreter.source == "system" and find_system(order.uv, interpreter) is None:
            order.notify(
                f"the locked CPython {interpreter.version} is not on this machine; choosing another"
            )
            return False
    return set(before) == set(cluster_platforms(order.spec))


def _same(lock: Lock, choice: Choice) -> bool:
    return _interpreters(lock) == choice.interpreters


def _interpreters(lock: Lock) -> dict[str, Interpreter]:
    return dict(lock.toolchains[DRIVER].interpreters)


def _pins(order: _Order, choice: Choice, keep: Mapping[str, str]) -> dict[str, list[Pin]]:
    """What uv resolved, by environment.

    Raises:
        UsageError: a package to upgrade is none of the cluster's.
    """
    from saf_env.lock.resolve import resolve

    pins = resolve(
        order.spec,
        choice.version,
        order.uv,
        keep=keep,
        upgrade_packages=order.upgrade_packages,
        notify=order.notify,
    )
    known = {pin.name for found in pins.values() for pin in found}
    for package in order.upgrade_packages:
        if normalised(package) not in known:
            raise UsageError(
                f"{package} is no package of cluster {order.spec.name}",
                hint="name a package that stands in lockfiles/, or upgrade all with --upgrade",
            )
    return pins


def assemble(
    spec: ClusterSpec, choice: Choice, pins: Mapping[str, Sequence[Pin]], base: str
) -> Lock:
    """The lock of ``spec`` from its interpreters, pins and base image, not sealed yet."""
    bases = {node.name: base for node in spec.nodes if node.kind == "container"}
    environments = {}
    platforms = environment_platforms(spec)
    for name in sorted(pins):
        header = files.environment_header(spec.name, name, choice.version, platforms[name])
        text = header + render(pins[name])
        groups = () if name in ("base", DRIVER) else tuple(name.split("+"))
        environments[name] = EnvironmentLock(name, groups, text, files.sha256(text.encode()))
    nodes = {
        node.name: (environment_name(node.groups), node_platforms(spec, node))
        for node in spec.nodes
    }
    nodes[DRIVER] = (DRIVER, cluster_platforms(spec))
    return Lock(
        cluster=spec.name,
        inputs="",
        sha256="",
        python=choice.version,
        environments=environments,
        toolchains={
            node: _toolchain(node, environments[environment], on, choice, bases.get(node, ""))
            for node, (environment, on) in sorted(nodes.items())
        },
        downloads=choice.downloads,
    )


def _toolchain(
    node: str,
    environment: EnvironmentLock,
    platforms: tuple[str, ...],
    choice: Choice,
    base_image: str,
) -> Toolchain:
    wheels = pinned_wheels()
    return Toolchain(
        node=node,
        platforms=platforms,
        interpreters={name: choice.interpreters[name] for name in sorted(platforms)},
        uv_version=pinned_version(),
        uv_wheels={name: wheels[name] for name in platforms},
        environment=environment.name,
        environment_sha256=environment.sha256,
        base_image=base_image,
    )

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from saf_env.lock.diff import changes
from saf_env.lock.make import preferred
from saf_env.lock.model import Lock
from saf_env.spec.model import ClusterSpec

LockMaker = Callable[..., tuple[Lock, dict[str, str]]]


def test_nothing_to_tell(studio: ClusterSpec, locked: LockMaker) -> None:
    lock, _ = locked(studio, numpy="2.4.1")
    assert changes(None, lock) == ()
    assert changes(lock, lock) == ()


def test_packages_and_interpreters(studio: ClusterSpec, locked: LockMaker) -> None:
    old, _ = locked(studio, numpy="2.4.1", gone="1.0", same="1.0")
    new, _ = locked(studio, "3.13.8", numpy="2.4.6", come="0.1", same="1.0")
    where = "(base, cuda+mlx, driver, mlx)"
    build = "managed 20260814 (abababababab)"
    assert changes(old, new) == (
        "python 3.13.7 -> 3.13.8",
        f"interpreter for linux-arm64: {build} -> {build}",
        f"interpreter for linux-x86_64: {build} -> {build}",
        f"interpreter for macos-arm64: {build} -> {build}",
        f"come 0.1 added  {where}",
        f"gone 1.0 removed  {where}",
        f"numpy 2.4.1 -> 2.4.6  {where}",
    )


def test_nodes_environments_and_uv(studio: ClusterSpec, locked: LockMaker) -> None:
    old, _ = locked(studio, numpy="2.4.1")
    smaller, _ = locked(replace(studio, nodes=studio.nodes[:2]), numpy="2.4.1")
    toolchains = {k: replace(t, uv_version="0.14.0") for k, t in smaller.toolchains.items()}
    assert changes(old, replace(smaller, toolchains=toolchains)) == (
        "interpreter for linux-x86_64: managed 20260814 (abababababab) -> none",
        "uv 0.13.9 -> 0.14.0",
        "environment cuda+mlx removed",
        "node box removed",
    )


def test_other_files_of_the_same_version(studio: ClusterSpec, locked: LockMaker) -> None:
    old, _ = locked(studio, numpy="2.4.1")
    base = old.environments["base"]
    tampered = replace(base, text=base.text.replace("--hash=sha256:6", "--hash=sha256:7"))
    new = replace(old, environments={**old.environments, "base": tampered})
    assert changes(old, new) == ("numpy 2.4.1: other files  (base)",)


def test_versions_that_all_agree_on_are_kept() -> None:
    texts = ["numpy==2.4.1\nidna==3.10\n", "<<<<<<< HEAD\nnumpy==2.4.1\nidna==3.11\n"]
    assert preferred(texts) == {"numpy": "2.4.1"}

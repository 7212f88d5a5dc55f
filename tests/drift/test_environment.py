"""Single differences of what is installed in an environment: each is found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from saf_env import probe
from tests.drift.node import Change, Make, Seen, Table, prove

raises = Table()


# Files of packages


@raises("packages-intact fail")
def bit_flipped_in_a_library(here: Change) -> str:
    here.flip(here.site / "ray" / "_raylet.so", at=1_000_000)
    return "_raylet.so"


@raises("packages-intact fail")
def bit_flipped_in_a_module(here: Change) -> str:
    here.flip(here.site / "six.py")
    return "six.py"


@raises("packages-intact fail")
def bit_flipped_in_rays_program(here: Change) -> str:
    here.flip(here.site / "ray/core/src/ray/gcs/gcs_server")
    return "gcs_server"


@raises("packages-intact fail")
def source_changed_and_its_bytecode_kept(here: Change) -> str:
    path = here.site / "numpy" / "version.py"
    here.write(path, path.read_text() + "\n# changed\n")
    return "version.py"


@raises("packages-intact fail")
def bytecode_changed_and_its_source_kept(here: Change) -> str:
    name = f"six.{here.tag}.pyc"
    here.write(here.site / "__pycache__" / name, _other_bytecode(here))
    return name


@raises("packages-extra fail")
def optimised_bytecode_of_another_source(here: Change) -> str:
    name = f"six.{here.tag}.opt-1.pyc"
    here.write(here.site / "__pycache__" / name, _other_bytecode(here))
    return name


@raises("packages-intact fail")
def bytecode_elsewhere(here: Change) -> str:
    folder = here.site / "idna" / "__pycache__"
    here.link(folder, Path(shutil.copytree(folder, here.aside / "like")))
    return "idna/__pycache__"


@raises("packages-intact fail")
def file_cut_short(here: Change) -> str:
    here.write(here.site / "numpy" / "__init__.py")
    return "__init__.py"


@raises("packages-intact fail")
def file_missing(here: Change) -> str:
    here.remove(here.site / "idna" / "core.py")
    return "missing: "


@raises("packages-intact fail")
def folder_missing(here: Change) -> str:
    here.remove(here.site / "numpy" / "linalg")
    return "numpy/linalg"


@raises("packages-intact fail")
def file_that_is_a_link_to_its_like(here: Change) -> str:
    path = here.site / "six.py"
    copy = shutil.copy2(path, here.aside / "like.py")
    here.link(path, Path(copy))
    return "six.py"


@raises("packages-intact fail")
def folder_that_is_a_link_to_its_like(here: Change) -> str:
    path = here.site / "idna"
    here.link(path, Path(shutil.copytree(path, here.aside / "like")))
    return "idna"


@raises("packages-intact fail")
def file_that_is_a_folder(here: Change) -> str:
    path = here.site / "six.py"
    here.remove(path)
    path.mkdir()
    return "six.py"


@raises("packages-intact fail")
def file_that_is_a_pipe(here: Change) -> str:
    path = here.site / "six.py"
    here.remove(path)
    os.mkfifo(path)  # whoever reads it waits for ever
    return "six.py"


@raises("packages-intact fail")
def program_that_may_not_run(here: Change) -> str:
    here.mode(here.site / "ray/core/src/ray/raylet/raylet", 0o644)
    return "raylet"


@raises("packages-intact fail")
def record_edited(here: Change) -> str:
    here.edit(here.metadata("six") / "RECORD", "sha256=", "sha256=A")
    return "RECORD"


@raises("packages-intact fail")
def metadata_edited(here: Change) -> str:
    here.edit(here.metadata("numpy") / "METADATA", "Name: numpy", "Name: numpi")
    return "METADATA"


@raises("packages-intact fail", "packages-extra fail")
def manifest_edited(here: Change) -> str:
    here.edit(here.env / probe.MANIFEST, '"six.py"', '"sev.py"')
    return "manifest"


@raises("packages-intact fail")
def manifest_missing(here: Change) -> None:
    here.remove(here.env / probe.MANIFEST)


@raises("packages-intact fail", "packages-locked fail", "python-intact fail")
def marker_missing(here: Change) -> None:
    here.remove(here.env / probe.MARKER)


@raises("packages-intact fail", "packages-locked fail", "python-intact fail")
def marker_cut_short(here: Change) -> None:
    here.write(here.env / probe.MARKER, "{")


@raises("lock-same fail", "packages-locked fail")
def marker_of_other_requirements(here: Change) -> None:
    marker = here.env / probe.MARKER
    value = json.loads(marker.read_text())
    here.write(marker, json.dumps({**value, "environment_sha256": "0" * 64}))


# Packages


@raises("packages-locked fail", "packages-extra fail", "packages-intact fail")
def package_of_a_newer_version(here: Change) -> str:
    here.rename(here.metadata("numpy"), "numpy-99.0.dist-info")
    return "numpy 99.0 instead of"


@raises("packages-locked fail", "packages-extra fail", "packages-intact fail")
def package_of_an_older_version(here: Change) -> str:
    here.rename(here.metadata("ray"), "ray-2.59.0.dist-info")
    return "ray 2.59.0 instead of 2.60.0"


@raises("packages-locked fail", "packages-extra fail")
def second_version_beside(here: Change) -> str:
    shutil.copytree(here.metadata("numpy"), new := here.site / "numpy-1.0.dist-info")
    here.undo.callback(shutil.rmtree, new)
    return "numpy 1.0, "


@raises("packages-locked fail", "packages-intact fail")
def package_missing(here: Change) -> str:
    here.remove(here.metadata("numpy"))
    here.remove(here.site / "numpy")
    return "missing: numpy"


@raises("packages-extra fail")
def package_that_is_not_locked(here: Change) -> str:
    here.write(here.site / "evil-1.0.dist-info" / "METADATA", "Name: evil\nVersion: 1.0\n")
    return "evil 1.0"


@raises("packages-extra fail")
def package_of_the_old_kind(here: Change) -> str:
    here.write(here.site / "old-0.1.egg-info", "Name: old\n")
    return "old 0.1"


@raises("packages-extra fail")
def package_developed_elsewhere(here: Change) -> str:
    here.write(here.site / "numpy_fork.egg-link", "/home/me/numpy\n")
    return "numpy-fork"


@raises("packages-extra fail", "python-isolated fail")
def package_installed_editable(here: Change) -> str:
    here.write(here.site / "evil-1.0.dist-info" / "METADATA", "Name: evil\nVersion: 1.0\n")
    here.write(here.site / "__editable__.evil-1.0.pth", "/home/me/evil\n")
    return "__editable__"


@raises("packages-extra fail")
def package_in_place_of_a_module(here: Change) -> str:
    here.write(here.site / "six" / "__init__.py")
    return "six"


@raises("packages-extra fail")
def library_in_place_of_a_module(here: Change) -> str:
    here.write(here.site / "numpy" / "version.abi3.so")
    return "version.abi3.so"


@raises("packages-extra fail")
def program_of_nobody(here: Change) -> str:
    here.write(here.env / "bin" / "bash", "#!/bin/sh\n")
    return "bin/bash"


# What runs at the interpreter's start


@raises("packages-extra fail", "python-isolated fail")
def path_file(here: Change) -> str:
    here.write(here.site / "later.pth", "import os\n")
    return "later.pth"


@raises("packages-extra fail", "python-isolated fail")
def usercustomize(here: Change) -> str:
    here.write(here.site / "usercustomize.py")
    return "usercustomize"


@raises("packages-extra fail", "python-isolated fail")
def sitecustomize_as_a_package(here: Change) -> str:
    here.write(here.site / "sitecustomize" / "__init__.py")
    return "sitecustomize"


@raises("packages-intact fail", "python-isolated fail")
def packages_of_the_system_seen(here: Change) -> str:
    setting = "include-system-site-packages = "
    here.edit(here.env / "pyvenv.cfg", f"{setting}false", f"{setting}true")
    return "also sees the system's packages"


@raises("python-isolated warn")
def pythonpath(here: Change) -> None:
    here.environ["PYTHONPATH"] = str(here.aside)


@raises("python-isolated warn")
def pythonhome(here: Change) -> None:
    here.environ["PYTHONHOME"] = "/usr"


def _other_bytecode(here: Change) -> bytes:
    return (here.site / "idna" / "__pycache__" / f"core.{here.tag}.pyc").read_bytes()


@pytest.mark.parametrize(("make", "expected"), raises.cases)
def test_found(
    change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]
) -> None:
    prove(change, make, expected, healthy)


def test_the_node_is_healthy_again(change: Change, healthy: Mapping[bool, Seen]) -> None:
    change.arguments = ["head", "--deep"]
    prove(change, lambda _: None, set(), healthy)

"""What an image is not built from, and what a failed build leaves: nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from saf_env.engine import Engine
from saf_env.errors import ToolchainError
from saf_env.lock.images import LOCAL_BASE
from saf_env.plan.images import image_plan
from saf_env.provision.images import ensure_image, image_id
from saf_env.provision.pack import pack
from saf_env.transports.local import LocalTransport
from tests.hosts.conftest import CHILD, LOCKED, PROJECT, Yard, docker, in_container, served, wheel


@pytest.mark.usefixtures("image")  # brings uv's own wheel into the cache
def test_wheels_of_a_local_folder_are_enough(yard: Yard, tmp_path: Path) -> None:
    text = wheel(tmp_path / "wheels", f"value = '{tmp_path}'\n")
    (tmp_path / "wheels" / "other-1.0-py3-none-any.whl").write_bytes(b"not locked")
    image = yard.plan(text, **{"saf-env-tiny": "1.0"})
    yard.make(image, UV_FIND_LINKS=f"{tmp_path}/wheels", UV_OFFLINE="1")
    found = in_container(image, "python", "-c", "import saf_env_tiny as s; print(s.value)")
    assert found == str(tmp_path)


def test_an_index_on_this_machine_is_reached(yard: Yard, tmp_path: Path) -> None:
    text = wheel(tmp_path / "wheels", f"value = '{tmp_path}'\n")
    image = yard.plan(text, **{"saf-env-tiny": "1.0"})
    with served(tmp_path / "wheels") as address:
        yard.make(image, UV_FIND_LINKS=address)
    assert image_id(image.tag, yard.engine)


def test_uvs_own_configuration_reaches_the_build(yard: Yard, tmp_path: Path) -> None:
    text = wheel(tmp_path / "wheels", f"value = '{tmp_path}'\n")
    image = yard.plan(text, **{"saf-env-tiny": "1.0"})
    (tmp_path / "uv").mkdir()
    with served(tmp_path / "wheels") as address:
        settings = f'find-links = ["{address}"]\n'
        (tmp_path / "uv" / "uv.toml").write_text(settings, encoding="ascii")
        yard.make(image, XDG_CONFIG_HOME=str(tmp_path))
    assert image_id(image.tag, yard.engine)


def test_an_index_that_is_not_there(yard: Yard) -> None:
    text = f"six==1.17.0 --hash=sha256:{'0' * 64}\n"
    address = "http://127.0.0.1:9/simple"
    error = yard.refused(
        yard.plan(text, six="1.17.0"), UV_DEFAULT_INDEX=address, UV_HTTP_RETRIES="0"
    )
    assert "127.0.0.1:9" in error.message
    assert "package index" in error.hint


# What must not be believed


def test_a_flipped_digest_is_refused(yard: Yard) -> None:
    error = yard.refused(yard.plan(LOCKED.replace("946d195", "046d195")))
    assert "ash mismatch" in error.message
    assert "another file than the one that was locked" in error.hint


@pytest.mark.usefixtures("image")
def test_a_wheel_that_contradicts_its_record_is_refused(yard: Yard, tmp_path: Path) -> None:
    text = wheel(tmp_path / "wheels", "value = 2\n", promised="value = 1\n")
    image = yard.plan(text, **{"saf-env-tiny": "1.0"})
    error = yard.refused(image, UV_FIND_LINKS=f"{tmp_path}/wheels", UV_OFFLINE="1")
    assert "saf_env_tiny.py is not what its package's RECORD says" in error.message


def test_other_packages_than_planned_are_refused(yard: Yard) -> None:
    error = yard.refused(yard.plan(LOCKED.split("six", maxsplit=1)[0] + "\n\n"))
    assert "uv has not installed what the lock says" in error.message


def test_an_archive_of_another_version_is_refused(yard: Yard) -> None:
    archive = yard.home / "python.tar.gz"
    packed = pack(Path(sys.executable), archive, yard.uv(), lambda _: None)
    image = yard.plan()
    interpreter = dataclasses.replace(
        image.environment.interpreter,
        source="archive",
        url=archive.name,
        sha256=packed.sha256,
        version=f"{packed.version}9",
    )
    env = dataclasses.replace(image.environment, interpreter=interpreter)
    error = yard.refused(image_plan(env, yard.base, image.uv_wheel))
    assert f"cpython {packed.version}, the lock says CPython {packed.version}9" in error.message
    data = archive.read_bytes()
    archive.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    good = dataclasses.replace(interpreter, version=packed.version)
    env = dataclasses.replace(image.environment, interpreter=good)
    error = yard.refused(image_plan(env, yard.base, image.uv_wheel))
    assert "ash mismatch" in error.message or "is no archive" in error.message


# Base images and engines


def test_a_base_with_an_old_glibc(yard: Yard, tmp_path: Path) -> None:
    base = derived(yard, tmp_path, "RUN printf '#!/bin/sh\\necho glibc 2.31' >/usr/bin/getconf")
    error = yard.refused(yard.plan(base=base))
    assert "the base image has glibc 2.31; the locked packages need 2.35 or newer" in error.message
    docker("image", "rm", "--force", base)


def test_a_base_without_glibc(yard: Yard, tmp_path: Path) -> None:
    base = derived(yard, tmp_path, "RUN rm /usr/bin/getconf")
    assert "has no glibc" in yard.refused(yard.plan(base=base)).message
    docker("image", "rm", "--force", base)


def derived(yard: Yard, folder: Path, line: str) -> str:
    (folder / "Dockerfile").write_text(f"FROM {LOCAL_BASE}\n{line}\n", encoding="utf-8")
    return docker("build", "--quiet", str(folder))


def test_a_base_of_another_architecture(yard: Yard, tmp_path: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "s390x",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": b'[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]',
    }
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    base = docker("load", "--input", f"{tmp_path}/image.tar").rpartition(" ")[2]
    assert "is for linux on s390x" in yard.refused(yard.plan(base=base)).message
    docker("image", "rm", base)


def test_a_base_that_the_engine_does_not_have(yard: Yard) -> None:
    error = yard.refused(yard.plan(base="sha256:" + "0" * 64))
    assert "does not have the base image" in error.message
    assert "make base-image" in error.hint


def test_a_base_that_cannot_be_pulled(yard: Yard) -> None:
    base = "registry.invalid/debian@sha256:" + "0" * 64
    error = yard.refused(yard.plan(base=base))
    assert "cannot be pulled" in error.hint


def test_an_engine_that_is_gone(yard: Yard) -> None:
    gone = Engine(LocalTransport(), {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:9"})
    with pytest.raises(ToolchainError) as caught:
        ensure_image(yard.plan(), "images", yard.uv(), gone, lambda _: None)
    assert "start it" in caught.value.hint


# A build that is killed


@pytest.mark.parametrize("after", ["packing", "building the image", "installing 2 packages"])
def test_a_killed_build_leaves_nothing_that_is_believed(yard: Yard, after: str) -> None:
    # Every time another lock, or the engine would know the result from an earlier run.
    image = yard.plan(f"# {os.urandom(8).hex()}\n{LOCKED}" + "\n" * (2 + len(after)))
    uv, engine = yard.uv(), yard.engine
    if after == "packing":
        for path in (yard.home / ".saf" / "python").glob("packed-*"):
            path.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        values = (
            image,
            dataclasses.replace(uv, environ=dict(uv.environ)),
            dataclasses.replace(engine, environ=dict(engine.environ)),
        )
        child.stdin.write(pickle.dumps(values))
        child.stdin.close()
        while line := child.stdout.readline().decode():
            if after in line:
                break
        else:
            raise AssertionError(f"it never said {after!r}")
        child.send_signal(signal.SIGKILL)
    assert image_id(image.tag, engine) is None
    # Docker's command line may go on by itself, and finish: what it makes is whole.
    yard.make(image)
    assert in_container(image, "python", "-c", "import idna, six; print(1)") == "1"
    assert not list((yard.home / ".saf" / "images").glob("*making*"))

"""Images of container nodes, built by a real engine: content, sameness, secrets, faults.

They need an engine, and the base image that ``images/base.sh`` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

from saf_env import probe
from saf_env.lock.images import LOCAL_BASE
from saf_env.plan.fingerprint import actual_fingerprint, fingerprint
from saf_env.plan.model import ImagePlan
from saf_env.provision.images import ensure_image, image_id, prune
from tests.hosts.conftest import (
    LOCKED,
    TRIAL,
    Yard,
    docker,
    in_container,
    served,
    tree,
    wheel,
)


def test_it_runs_locked_down_and_as_nobody_in_particular(image: ImagePlan) -> None:
    libraries = in_container(image, "python", "-I", "-c", TRIAL).split()
    strange = [path for path in libraries if not path.startswith("/opt/saf-env/python/")]
    assert {Path(p).name.split(".")[0].split("-")[0] for p in strange} <= {"libc", "libm", "ld"}
    assert in_container(image, "id") == "uid=10001(saf) gid=10001(saf) groups=10001(saf)"
    other = in_container(
        image, "python", "-c", "import six, os; print(os.getuid())", options="--user 4711:4711"
    )
    assert other == "4711"
    code = "import ssl, sys; print(sys.prefix)"
    venv = f"python -m venv --without-pip /tmp/env && /tmp/env/bin/python -c '{code}'"
    assert in_container(image, "sh", "-c", venv) == "/tmp/env"


def test_a_node_in_it_has_the_planned_fingerprint(image: ImagePlan) -> None:
    names = ["interpreter", "environment", "packages", "isolation", "files", "python_files"]
    source = Path(probe.__file__).read_text(encoding="utf-8")
    answer = json.loads(
        in_container(image, "python", "-I", "-S", "-c", source, data=json.dumps({"only": names}))
    )
    assert answer["unknown"] == {}
    facts, env = answer["facts"], image.environment
    assert actual_fingerprint(facts) == fingerprint(
        version=env.interpreter.version,
        build=env.interpreter.build,
        sha256=env.interpreter.sha256,
        packages=env.packages,
    )
    assert facts["environment"]["marker"]["key"] == env.key
    files = facts["files"]
    assert files["manifest_sha256"] == facts["environment"]["marker"]["manifest_sha256"]
    assert all(files[kind] == [0, []] for kind in ("changed", "missing", "foreign"))
    library = facts["python_files"]
    assert library["manifest_sha256"] == facts["environment"]["marker"]["python_manifest_sha256"]
    assert all(library[kind] == [0, []] for kind in ("changed", "missing", "foreign"))
    assert facts["isolation"] == {"startup": [], "base": []}


def test_nothing_is_in_it_that_a_node_does_not_need(yard: Yard, image: ImagePlan) -> None:
    found, base = tree(image.tag), tree(yard.base)
    new = {name for name in found if found[name][:-1] != base.get(name, (None,))[:-1]}
    outside = {name for name in new if not name.startswith("opt/saf-env")}
    assert outside == {"etc/passwd", "etc/group", "ray"}
    parts = {part for name in new for part in name.split("/")}
    assert not parts & {"uv", "uvx", "pip", "include", "test", "tests", "accounts"}
    assert "opt/saf-env/env/bin/activate" not in new
    assert all(found[name][1:3] == (0, 0) for name in new)
    files = {name for name in new if found[name][3] != tarfile.SYMTYPE}
    assert {name for name in files if found[name][0] & 0o022} == {"ray"}
    # All bytecode is there: a node cannot write it.
    sources = {n for n in new if n.endswith(".py") and "/site-packages/" in n}
    compiled = {n.rsplit("/__pycache__/", 1)[0] for n in new if n.endswith(".pyc")}
    assert {n.rpartition("/")[0] for n in sources} <= compiled
    size = json.loads(docker("image", "inspect", "--format", "{{.Size}}", image.tag))
    assert size - json.loads(docker("image", "inspect", "--format", "{{.Size}}", yard.base)) < 90e6


def test_its_labels_say_what_it_was_made_from(image: ImagePlan) -> None:
    (seen,) = json.loads(docker("image", "inspect", image.tag))
    labels = seen["Config"]["Labels"]
    assert labels["saf-env.cluster"] == "images"
    assert labels["saf-env.key"] == image.key
    assert labels["saf-env.environment-lock"] == image.environment.lock.sha256
    assert len(labels["saf-env.toolchain"]) == 64
    assert seen["Config"]["Entrypoint"] is None


def test_two_builds_are_the_same(yard: Yard, image: ImagePlan) -> None:
    one, first = image_id(image.tag, yard.engine), tree(image.tag)
    two = yard.make(image, rebuild=True)
    second = tree(two)
    assert {k: v[:-1] for k, v in first.items()} == {k: v[:-1] for k, v in second.items()}
    # What cannot be equal: the image's id, for the time of its making is in it, and the times of
    # folders that the engine itself makes, those that files are copied into among them.
    times = {k for k in first if first[k][-1] != second[k][-1]}
    assert two != one
    assert {k for k in times if k.startswith("opt/saf-env/")} <= {
        "opt/saf-env/python",
        "opt/saf-env/env",
    }
    assert image_id(one or "", yard.engine) is None, "the old one is not left without a name"


def test_what_is_there_is_not_built_again(yard: Yard, image: ImagePlan) -> None:
    said: list[str] = []
    started = time.monotonic()
    found = ensure_image(image, "other", yard.uv(), yard.engine, said.append)
    assert found == image_id(image.tag, yard.engine)
    assert time.monotonic() - started < 1
    assert said == []
    left = {path.name for path in (yard.home / ".saf" / "images").glob(f"*{image.key}*")}
    assert left == {f".{image.key}.lock"}


def test_a_foreign_image_of_that_name_is_not_believed(yard: Yard) -> None:
    image = yard.plan(LOCKED.split("six", maxsplit=1)[0], idna="3.10")
    docker("tag", yard.base, image.tag)
    made = yard.make(image)
    assert made != yard.base
    docker("image", "rm", made)


def test_images_of_earlier_locks_go(yard: Yard, image: ImagePlan, tmp_path: Path) -> None:
    """The newest two stay, and one that a container has."""
    label = f"pruned-{os.getpid()}"
    series = image.tag.removesuffix(image.key)
    tags = [f"{series}{number:012}" for number in range(5)]
    for tag in tags:
        made = f"FROM {LOCAL_BASE}\nCOPY Dockerfile /\nLABEL saf-env.cluster={label} of={tag}\n"
        (tmp_path / "Dockerfile").write_text(made, encoding="utf-8")
        docker("build", "--quiet", "--tag", tag, str(tmp_path))
        time.sleep(1.1)  # the engine knows the order by seconds
    container = docker("create", tags[1], "true")
    try:
        prune(image, label, yard.engine)
        listed = ("image", "ls", "--filter", f"label=saf-env.cluster={label}")
        left = docker(*listed, "--format", "{{.Repository}}:{{.Tag}}").split()
        assert sorted(left) == [tags[1], *tags[3:]]
        assert image_id(image.tag, yard.engine)
    finally:
        docker("rm", container)
        made = docker("image", "ls", "--quiet", "--filter", f"label=saf-env.cluster={label}")
        docker("image", "rm", *made.split())


# Secrets


def test_secrets_are_nowhere(yard: Yard, tmp_path: Path) -> None:
    secret = "s3cr3t-" + os.urandom(4).hex()
    (tmp_path / ".netrc").write_text(f"machine x login y password {secret}-netrc\n", "ascii")
    text = wheel(tmp_path / "wheels", f"value = '{tmp_path}'\n")
    image = yard.plan(text, **{"saf-env-tiny": "1.0"})
    with served(tmp_path / "wheels") as address:
        made = yard.make(
            image,
            NETRC=f"{tmp_path}/.netrc",
            UV_INDEX_CORP_PASSWORD=f"{secret}-index",
            UV_FIND_LINKS=address.replace("://", f"://user:{secret}-url@"),
        )
    assert secret not in docker("image", "inspect", made)
    assert secret not in docker("history", "--no-trunc", made)
    saved = subprocess.run(["docker", "save", made], capture_output=True, check=True).stdout
    assert secret.encode() not in saved
    for path in (p for p in (yard.home / ".saf").rglob("*") if p.is_file()):
        assert secret.encode() not in path.read_bytes(), path


# Other indexes

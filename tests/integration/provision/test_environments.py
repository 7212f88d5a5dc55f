"""Environments are made whole or not at all, whatever happens on the way."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.errors import ToolchainError
from saf_env.provision.environments import ensure_environment, ready


def quiet(_text: str) -> None:
    """Nobody looks."""


def test_made_once_and_works(workshop: Any) -> None:
    env = workshop.plan()
    assert any("installing 2 packages" in line for line in workshop.make(env))
    assert not ensure_environment(env, workshop.uv, quiet)
    assert workshop.intact(env)
    assert workshop.leftovers(env) == []
    assert workshop.facts(env)["packages"] == [["idna", "3.10"], ["six", "1.17.0"]]
    code = "import idna; print(idna.encode.__code__.co_filename)"
    result = subprocess.run(
        [env.python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == str(workshop.site(env) / "idna" / "core.py")
    assert all(path.stat().st_nlink == 1 for path in workshop.site(env).rglob("*.py"))


def test_python_variables_have_no_say(workshop: Any) -> None:
    shadow = workshop.home / "shadow"
    shadow.mkdir()
    (shadow / "sitecustomize.py").write_text("raise SystemExit(9)")
    env = workshop.plan()
    loud = {"PYTHONPATH": str(shadow), "PYTHONHOME": "/nowhere", "VIRTUAL_ENV": "/nowhere"}
    workshop.make(env, workshop.uv_with(**loud))
    assert workshop.intact(env)


def test_console_scripts_work_after_the_rename(workshop: Any) -> None:
    digest = "708e7481cc80179af0e556bbf0cc00b8444c7321e2700b8d8580231d13017248"
    env = workshop.plan(f"wheel==0.45.1 --hash=sha256:{digest}\n", wheel="0.45.1")
    workshop.make(env)
    result = subprocess.run(
        [env.path / "bin" / "wheel", "version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == "wheel 0.45.1"
    assert workshop.intact(env)


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_every_step_there_is_the_old_one_or_none(workshop: Any, replacing: bool) -> None:
    env = workshop.plan()
    if replacing:
        workshop.make(env)
    for step in itertools.count(1):
        process = workshop.child(env, rebuild=replacing, step=step)
        process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        assert workshop.intact(env) or not env.path.exists()
    assert step > 5
    assert workshop.intact(env)
    assert workshop.leftovers(env) == []


def test_killed_while_uv_installs(workshop: Any) -> None:
    env = workshop.plan()
    process = workshop.child(env)
    while not list(env.path.parent.glob(".*.making-*/env/lib/python*/site-packages/*")):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    assert not env.path.exists()
    workshop.make(env)  # the uv of the killed one may still be writing
    assert workshop.intact(env)
    assert ensure_environment(env, workshop.uv, quiet, rebuild=True)
    assert workshop.intact(env)
    assert workshop.leftovers(env) == []


def test_three_at_once_make_it_once(workshop: Any) -> None:
    env, made = workshop.plan(), []
    threads = [
        threading.Thread(target=lambda: made.append(ensure_environment(env, workshop.uv, quiet)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(made) == [False, False, True]
    assert workshop.intact(env)


def test_what_is_not_whole_is_made_anew(workshop: Any) -> None:
    env = workshop.plan()
    workshop.make(env)
    (env.path / probe.MARKER).write_text("{")
    assert not ready(env)
    workshop.make(env)
    assert workshop.intact(env)
    assert workshop.leftovers(env) == []


class TestCache:
    @pytest.fixture
    def cache(self, workshop: Any, tmp_path: Path) -> Path:
        """A cache of its own that holds all that the environment needs, which is not there."""
        folder, env = tmp_path / "cache", workshop.plan()
        workshop.make(env, workshop.uv_with(folder))
        shutil.rmtree(env.path)
        return folder

    def six(self, cache: Path) -> Path:
        (path,) = cache.glob("uv/archive-v0/**/six.py")
        return path

    def test_warm_without_network(self, workshop: Any, cache: Path) -> None:
        env, nowhere = workshop.plan(), "http://127.0.0.1:9"
        proxies = {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "ALL_PROXY": nowhere}
        workshop.make(env, workshop.uv_with(cache, **proxies))
        assert workshop.intact(env)

    @pytest.mark.parametrize("fault", ["edited", "truncated", "removed", "added"])
    def test_damage_is_fetched_anew(self, workshop: Any, cache: Path, fault: str) -> None:
        env, path = workshop.plan(), self.six(cache)
        if fault == "edited":
            path.write_text(path.read_text() + "\nimport os\n")
        elif fault == "truncated":
            path.write_bytes(path.read_bytes()[:1000])
        elif fault == "removed":
            path.unlink()
        else:
            (path.parent / "evil.pth").write_text("import os")
        assert any("damaged" in line for line in workshop.make(env, workshop.uv_with(cache)))
        assert workshop.intact(env)
        assert not list(workshop.site(env).glob("*.pth"))

    def test_damage_without_network_is_refused(self, workshop: Any, cache: Path) -> None:
        env = workshop.plan()
        self.six(cache).write_text("import os")
        with pytest.raises(ToolchainError, match="cannot install") as caught:
            ensure_environment(env, workshop.uv_with(cache, UV_OFFLINE="1"), quiet)
        assert "SAF_ENV_CACHE" in caught.value.hint
        assert not env.path.exists()

    def test_cold_without_network_says_so(self, workshop: Any, tmp_path: Path) -> None:
        env = workshop.plan()
        alone = workshop.uv_with(tmp_path / "empty", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple")
        with pytest.raises(ToolchainError) as caught:
            ensure_environment(env, alone, quiet)
        assert "cannot be reached" in caught.value.hint
        assert workshop.leftovers(env) == []
        assert not env.path.exists()


class TestRefused:
    def test_wrong_digest(self, workshop: Any, tmp_path: Path) -> None:
        env = workshop.plan(f"six==1.17.0 --hash=sha256:{'0' * 64}\n", six="1.17.0")
        with pytest.raises(ToolchainError) as caught:
            ensure_environment(env, workshop.uv_with(tmp_path / "cache"), quiet)
        assert "Hash mismatch" in caught.value.message
        assert "another file" in caught.value.hint
        assert workshop.leftovers(env) == []

    def test_digest_stripped(self, workshop: Any) -> None:
        env = workshop.plan("six==1.17.0\n", six="1.17.0")
        with pytest.raises(ToolchainError, match="hash"):
            ensure_environment(env, workshop.uv, quiet)

    def test_more_than_planned(self, workshop: Any) -> None:
        env = workshop.plan(six="1.17.0")
        with pytest.raises(ToolchainError, match=r"not locked: idna 3\.10"):
            ensure_environment(env, workshop.uv, quiet)
        assert not env.path.exists()

    def test_no_space(self, workshop: Any) -> None:
        env = workshop.plan()
        workshop.make(env)  # so that the cache is warm
        shutil.rmtree(env.path)
        script = workshop.home / "small.sh"
        script.write_text('mount -t tmpfs -o size=400k none "$1" && shift && exec "$@"')
        namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
        prefix = [*namespace, "sh", str(script), str(workshop.home / ".saf" / "envs")]
        process = workshop.child(env, *prefix)
        _, said = process.communicate(timeout=120)
        assert process.returncode == ToolchainError.exit_code, said
        assert b"No space left" in said
        assert b"free" in said

    def test_unwritable_folder(self, workshop: Any) -> None:
        env = workshop.plan()
        env.path.parent.write_text("a file where the folder should be")
        with pytest.raises(ToolchainError, match="cannot write in"):
            ensure_environment(env, workshop.uv, quiet)

"""Differences that do not matter: nothing is found of any."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from saf_env.plan.build import token_path
from tests.drift.node import PORT, Change, Make, Seen, Table, prove

raises = Table()
harmless = raises()


# The environment


@harmless
def source_touched(here: Change) -> None:
    here.keep(here.site / "six.py")
    (here.site / "six.py").touch()


@harmless
def every_source_of_a_package_touched_and_compiled_anew(here: Change) -> None:
    here.keep(here.site / "idna")
    for path in (here.site / "idna").glob("*.py"):
        path.touch()
    _python(here, "-c", "import idna")


@harmless
def bytecode_optimised(here: Change) -> None:
    here.keep(here.site / "idna" / "__pycache__")
    _python(here, "-OO", "-c", "import idna")


@harmless
def bytecode_that_looks_at_no_time(here: Change) -> None:
    here.keep(here.site / "idna")
    way = ["-q", "-f", "--invalidation-mode", "unchecked-hash"]
    _python(here, "-m", "compileall", *way, here.site / "idna")


@harmless
def bytecode_of_another_python(here: Change) -> None:
    here.write(here.site / "__pycache__" / "six.cpython-39.pyc", b"whatever")


@harmless
def bytecode_of_a_module_removed(here: Change) -> None:
    (path,) = (here.site / "idna" / "__pycache__").glob("core.*.pyc")
    here.remove(path)


@harmless
def all_bytecode_of_a_package_removed(here: Change) -> None:
    here.remove(here.site / "idna" / "__pycache__")


@harmless
def files_for_the_group(here: Change) -> None:
    here.mode(here.site / "six.py", 0o664)
    here.mode(here.site / "idna", 0o775)


@harmless
def files_for_the_owner_only(here: Change) -> None:
    here.mode(here.site / "six.py", 0o600)
    here.mode(here.env / "bin" / "ray", 0o700)


@harmless
def file_restored_from_a_backup(here: Change) -> None:
    path = here.site / "ray" / "_raylet.so"
    here.write(path, path.read_bytes())


@harmless
def environment_restored_from_a_backup(here: Change) -> None:
    old = here.remove(here.env)
    subprocess.run(["cp", "-a", old, here.env], check=True, timeout=60)


@harmless
def environment_on_another_disk(here: Change) -> None:
    here.link(here.env, here.remove(here.env))


@harmless
def environment_that_cannot_be_written(here: Change) -> None:
    here.inside(f"mount --bind '{here.env}' '{here.env}'; mount -o remount,bind,ro '{here.env}'")


@harmless
def file_with_a_second_name_elsewhere(here: Change) -> None:
    os.link(here.site / "six.py", here.aside / "backup.py")


@harmless
def file_with_an_attribute(here: Change) -> None:
    here.keep(here.site / "six.py")
    os.setxattr(here.site / "six.py", "user.tag", b"blue")


@harmless
def files_read(here: Change) -> None:
    for path in (here.site / "numpy").glob("*.py"):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


@harmless
def folders_looked_at_by_the_finder(here: Change) -> None:
    here.write(here.site / ".DS_Store", b"\0\0\0\1Bud1")
    here.write(here.env / ".DS_Store", b"\0\0\0\1Bud1")


@harmless
def environment_of_another_lock_beside(here: Change) -> None:
    here.write(here.env.parent / f"{here.env.name[:-12]}{'0' * 12}" / "saf-env.json", "{}")


# The project


@harmless
def project_reached_by_a_link(here: Change) -> None:
    link = here.aside / "link"
    link.symlink_to(here.project.home)
    here.cwd = link


@harmless
def called_from_elsewhere(here: Change) -> None:
    here.cwd, here.arguments = here.aside, ["head", "--project", str(here.project.home)]


@harmless
def project_moved(here: Change) -> None:
    here.move(here.project.home.with_name("moved"))


@harmless
def modules_in_the_project(here: Change) -> None:
    for name in ("random.py", "ray.py", "numpy/__init__.py", "sitecustomize.py"):
        here.write(here.project.home / name, "raise SystemExit(1)\n")


@harmless
def another_cluster_beside(here: Change) -> None:
    text = here.project.file.read_text().replace('"drift"', '"another"')
    here.write(here.project.home / "another.toml", text)


@harmless
def cluster_file_with_a_remark(here: Change) -> None:
    text = here.project.file.read_text()
    here.write(here.project.file, "# Ours\n" + text.replace(" = ", "  =  "))


@harmless
def cluster_file_with_other_ends_of_lines(here: Change) -> None:
    here.write(here.project.file, here.project.file.read_bytes().replace(b"\n", b"\r\n"))


@harmless
def other_ports_planned(here: Change) -> None:
    here.edit(here.project.file, f"port = {PORT}", f"port = {PORT + 100}")


@harmless
def less_memory_planned(here: Change) -> None:
    here.edit(here.project.file, '"100MiB"', '"90MiB"')


@harmless
def lock_checked_out_anew(here: Change) -> None:
    for path in here.lock.rglob("*"):
        path.touch()


@harmless
def lock_made_anew(here: Change) -> None:
    old = here.remove(here.lock)
    shutil.copytree(old, here.lock)


# The user and the shell


def _variables(name: str, **variables: str) -> None:
    def variables_set(here: Change) -> None:
        here.environ |= variables

    variables_set.__name__ = name
    harmless(variables_set)


_variables("other_locale", LANG="de_DE.UTF-8", LC_ALL="C")
_variables("unknown_locale", LC_ALL="xx_XX.ISO-8859-1")
_variables("other_time_zone", TZ="Asia/Kathmandu")
_variables("no_terminal", TERM="dumb", NO_COLOR="1", COLUMNS="20")
_variables("another_environment_active", VIRTUAL_ENV="/opt/venv", CONDA_PREFIX="/opt/conda")
_variables("other_temp_folder", TMPDIR="/var/tmp")
_variables("settings_of_uv", UV_PYTHON="3.9", UV_PROJECT_ENVIRONMENT="/x", UV_LINK_MODE="hardlink")
_variables("bytecode_not_written", PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
_variables("libraries_of_the_user", LD_LIBRARY_PATH="/opt/lib")
_variables("variables_as_planned", RAY_AUTH_MODE="token", RAY_worker_niceness="0")
_variables("exception_without_a_proxy", no_proxy="localhost")
_variables(
    "proxy_with_an_exception",
    http_proxy="http://192.0.2.7:3128",
    grpc_proxy="http://192.0.2.7:3128",
    no_proxy="127.0.0.0/8,example.org",
)


@harmless
def token_path_as_planned(here: Change) -> None:
    home = here.project.home.resolve()
    here.environ["RAY_AUTH_TOKEN_PATH"] = str(token_path(home, "drift"))


@harmless
def other_tools_first_on_the_path(here: Change) -> None:
    for name in ("uv", "python3", "ray"):
        here.write(here.aside / name, "#!/bin/sh\nexit 1\n", 0o755)
    here.environ["PATH"] = f"{here.aside}:/usr/bin:/bin"


@harmless
def token_that_the_owner_only_reads(here: Change) -> None:
    here.mode(here.token, 0o400)


@harmless
def packages_of_the_user(here: Change) -> None:
    """They are hidden from the node, as is what would run at the start."""
    site = here.aside / ".local" / "lib" / here.site.parent.name / "site-packages"
    here.write(site / "usercustomize.py", "raise SystemExit(1)\n")
    here.write(site / "numpy" / "__init__.py", "raise SystemExit(1)\n")
    here.environ["HOME"] = str(here.aside)


@harmless
def other_umask(here: Change) -> None:
    here.before = ["sh", "-c", 'umask 077; exec "$@"', "sh"]


@harmless
def hardly_any_variables(here: Change) -> None:
    here.before = ["env", "-i", "PATH=/usr/bin:/bin"]


@harmless
def low_priority(here: Change) -> None:
    here.before = ["nice", "-n", "19"]


@harmless
def low_limit_that_may_be_raised(here: Change) -> None:
    here.limit("256:")


# The machine


@harmless
def port_used_by_udp(here: Change) -> None:
    here.listen(PORT, kind="udp")


@harmless
def port_of_a_connection_that_has_ended(here: Change) -> None:
    server = here.listen(PORT)
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    accepted.close()  # who closes first has its port in TIME_WAIT
    client.close()
    server.close()
    assert f":{PORT:04X} " in _time_waits(), "the connection is gone already"


@harmless
def redis_on_its_own_port(here: Change) -> None:
    here.listen(6379)


@harmless
def neighbouring_ports_held(here: Change) -> None:
    here.listen(PORT - 1)
    here.listen(PORT + 64)


@harmless
def process_of_another_cluster(here: Change) -> None:
    here.start("python3", "saf-0123456789/head/0123.4567")


@harmless
def process_of_a_node_with_a_longer_name(here: Change) -> None:
    here.start("python3", f"{here.temp.name}/head2/0123.4567")


@harmless
def process_that_only_sounds_like_ray(here: Change) -> None:
    here.start("raylet_exporter")


@harmless
def process_of_another_node_of_the_cluster(here: Change) -> None:
    here.start("raylet", f"{here.temp.name}/worker/0123.4567")


@harmless
def process_of_this_node_that_has_ended(here: Change) -> None:
    process = here.start("raylet", f"{here.temp.name}/head/0123.4567")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie


@harmless
def temp_dir_of_an_earlier_run(here: Change) -> None:
    for name in ("head.log", "0/session_latest/logs/raylet.out", "envs/x", "token"):
        here.write(here.temp / name)
    here.temp.chmod(0o700)


def _python(here: Change, *arguments: str | Path) -> None:
    """Run the node's interpreter, which may write bytecode."""
    plain = {"PATH": os.defpath}
    python = here.env / "bin" / "python"
    subprocess.run([python, "-I", *arguments], env=plain, check=True, timeout=60)


def _time_waits() -> str:
    """The local addresses of connections in TIME_WAIT (06 in ``/proc/net/tcp``)."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return " ".join(row.split()[1] for row in rows if row.split()[3] == "06") + " "


@pytest.mark.parametrize(("make", "expected"), raises.cases)
def test_nothing_is_found(
    change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]
) -> None:
    prove(change, make, expected, healthy)


def test_the_node_is_healthy_again(change: Change, healthy: Mapping[bool, Seen]) -> None:
    change.arguments = ["head", "--deep"]
    prove(change, lambda _: None, set(), healthy)

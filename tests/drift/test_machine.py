"""Single differences of a machine, the token and the cluster file: each is found."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from saf_env.uv import pinned_version
from tests.drift.node import PORT, Change, Make, Seen, Table, prove

raises = Table()


# Ports


@raises("ports-free fail")
def port_held_at_the_nodes_address(here: Change) -> str:
    here.listen(PORT)
    return f"{PORT} (gcs): held by"


@raises("ports-free fail")
def port_held_at_all_addresses(here: Change) -> str:
    here.listen(PORT + 4, "0.0.0.0")
    return f"{PORT + 4} (node_manager): held by"


@raises("ports-free fail")
def port_held_by_ipv6(here: Change) -> str:
    here.listen(PORT + 5, "::")
    return f"{PORT + 5} "


@raises("ports-free fail")
def port_of_a_worker_held(here: Change) -> str:
    here.listen(PORT + 31)
    return f"{PORT + 31} (worker): held by"


@raises("ports-free fail")
def two_ports_held(here: Change) -> str:
    here.listen(PORT + 6)
    here.listen(PORT + 7)
    return "2 ports are taken"


@raises("ports-free fail")
def port_held_by_a_connection(here: Change) -> str:
    server, client = here.listen(0), socket.socket()
    here.undo.callback(client.close)
    client.bind(("127.0.0.2", PORT + 8))
    client.connect(server.getsockname())
    return f"{PORT + 8} "


@raises("exit 2")
def port_of_redis_planned(here: Change) -> str:
    here.edit(here.project.file, f"port = {PORT}", "port = 6379")
    return "6379"


@raises("address fail")
def address_of_another_machine(here: Change) -> str:
    here.edit(here.project.file, "[hosts.here]", '[hosts.here]\naddress = "192.0.2.7"')
    return "192.0.2.7"


# Other processes


@raises("stale-ray fail")
def stale_process_of_this_node(here: Change) -> str:
    process = here.start("gcs_server", f"{here.temp.name}/head/0123.4567")
    return f"pid {process.pid}"


@raises("stale-ray fail")
def stale_worker_of_this_node(here: Change) -> str:
    process = here.start("python3", f"{here.temp.name}/head/0123.4567")
    return f"pid {process.pid}"


@raises("stale-ray warn")
def raylet_of_somebody_else(here: Change) -> None:
    here.start("raylet")


@raises("stale-ray warn")
def head_of_another_cluster(here: Change) -> None:
    here.start("gcs_server", "saf-0123456789/head/0123.4567")


@raises("stale-ray warn")
def node_that_has_left_the_plan(here: Change) -> str:
    process = here.start("raylet", f"{here.temp.name}/gone/0123.4567")
    return f"raylet of gone (pid {process.pid})"


# Limits, memory, disks


@raises("nofile fail")
def few_open_files(here: Change) -> str:
    here.limit("1024:1024")
    return "at most 1024"


@raises("nofile warn")
def not_many_open_files(here: Change) -> str:
    here.limit("4096:4097")
    return "at most 4097"


@raises("shm warn")
def little_shared_memory(here: Change) -> str:
    here.inside("mount -t tmpfs -o size=64m tmpfs /dev/shm")
    return "0.1 GiB there"


@raises("disk fail")
def full_disk(here: Change) -> str:
    here.temp.mkdir(0o700)
    here.undo.callback(here.temp.rmdir)
    here.inside(f"mount -t tmpfs -o size=64m,mode=700 tmpfs {here.temp}")
    return str(here.temp)


@raises("memory fail")
def more_memory_promised_than_there_is(here: Change) -> str:
    here.edit(here.project.file, 'role = "head"\ncpus = 1\nmemory = "256MiB"', _HUGE)
    return "9000.1 GiB are planned for the node"


@raises("memory fail")
def more_memory_promised_to_all_nodes(here: Change) -> str:
    here.edit(here.project.file, 'groups = ["more"]\ncpus = 1\nmemory = "256MiB"', _HUGE_WORKER)
    return "planned for nodes head, worker together"


@raises("exit 2")
def more_cpus_planned_than_ports(here: Change) -> str:
    here.edit(here.project.file, 'role = "head"\ncpus = 1', 'role = "head"\ncpus = 99')
    return "found 99"


_HUGE = 'role = "head"\ncpus = 1\nmemory = "9000GiB"'
_HUGE_WORKER = 'groups = ["more"]\ncpus = 1\nmemory = "9000GiB"'


# The temp dir


@raises("temp-dir fail")
def temp_dir_open_to_others(here: Change) -> str:
    _make_temp(here, 0o777)
    return "rwxrwxrwx"


@raises("temp-dir fail")
def temp_dir_of_another_user(here: Change) -> str:
    _make_temp(here, 0o700)
    here.owner(here.temp, 12345)
    return "user 12345"


@raises("temp-dir fail")
def temp_dir_that_cannot_be_written(here: Change) -> str:
    _make_temp(here, 0o700)
    here.inside(f"mount -t tmpfs -o ro,size=8g,mode=700 tmpfs {here.temp}")
    return "not writable"


@raises("temp-dir fail")
def temp_dir_that_is_a_link(here: Change) -> str:
    here.link(here.temp, here.aside)
    return "is a link"


@raises("temp-dir fail")
def temp_dir_that_is_a_file(here: Change) -> str:
    here.write(here.temp)
    return "not a folder"


@raises("temp-dir fail")
def module_in_the_temp_dir(here: Change) -> str:
    _make_temp(here, 0o700)
    here.write(here.temp / "random.py", "raise SystemExit(1)\n")
    return "random.py"


@raises("temp-dir fail")
def package_in_the_temp_dir(here: Change) -> str:
    _make_temp(here, 0o700)
    here.write(here.temp / "ray" / "__init__.py")
    return f"{here.temp}/ray"


def _make_temp(here: Change, mode: int) -> None:
    here.write(here.temp / ".keep")
    here.temp.chmod(mode)


# The token


@raises("token fail")
def token_missing(here: Change) -> str:
    here.remove(here.token)
    return "no token"


@raises("token fail")
def token_readable_by_others(here: Change) -> str:
    here.mode(here.token, 0o644)
    return "0644"


@raises("token fail")
def token_of_another_user(here: Change) -> str:
    here.owner(here.token, 12345)
    return "user 12345"


@raises("token fail")
def token_with_a_newline(here: Change) -> str:
    here.write(here.token, here.token.read_bytes() + b"\n")
    return "newline"


@raises("token fail")
def token_empty(here: Change) -> str:
    here.write(here.token)
    return "empty"


@raises("token fail")
def token_too_short(here: Change) -> str:
    here.write(here.token, "secret")
    return "shorter"


@raises("token fail")
def token_that_is_a_link(here: Change) -> str:
    here.link(here.token, here.project.file)
    return "not a plain file"


# Variables of the user


def _variable(name: str, value: str, *findings: str) -> None:
    def variable_set(here: Change) -> str:
        here.environ[name] = value
        return name

    variable_set.__name__ = f"variable_{name}"
    raises(*findings)(variable_set)


_WRONG, _DOUBTFUL = "environment-variables fail", "environment-variables warn"
_variable("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor", _WRONG)
_variable("RAY_AUTH_TOKEN", "x", _WRONG)
_variable("RAY_AUTH_TOKEN_PATH", "/tmp/token", _WRONG)
_variable("RAY_AUTH_MODE", "disabled", _WRONG)
_variable("RAY_USE_TLS", "1", _WRONG)
_variable("RAY_worker_niceness", "15", _WRONG)
_variable("RAY_ADDRESS", "192.0.2.7:6379", _DOUBTFUL)
_variable("RAY_gcs_rpc_server_reconnect_timeout_s", "1", _DOUBTFUL)
_variable("http_proxy", "http://192.0.2.7:3128", _DOUBTFUL)
_variable("HTTPS_PROXY", "http://192.0.2.7:3128", _DOUBTFUL)
_variable("grpc_proxy", "http://192.0.2.7:3128", _DOUBTFUL)


@raises(_DOUBTFUL)
def proxy_with_an_exception_for_others(here: Change) -> str:
    here.environ |= {"http_proxy": "http://192.0.2.7:3128", "no_proxy": "localhost,127.0.0.1"}
    return "no_proxy does not name 127.0.0.2"


# Tools


@raises("uv-version fail")
def uv_of_another_version(here: Change) -> str:
    path = here.project.home / ".saf" / "uv" / pinned_version() / "bin" / "uv"
    here.write(path, "#!/bin/sh\necho uv 0.0.1\n", 0o755)
    return "found 0.0.1"


@pytest.mark.parametrize(("make", "expected"), raises.cases)
def test_found(
    change: Change, make: Make, expected: set[str], healthy: Mapping[bool, Seen]
) -> None:
    prove(change, make, expected, healthy)


def test_the_node_is_healthy_again(change: Change, healthy: Mapping[bool, Seen]) -> None:
    change.arguments = ["head", "--deep"]
    prove(change, lambda _: None, set(), healthy)

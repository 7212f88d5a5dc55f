"""The probe on this machine: real sockets, real processes, real environments."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saf_env import probe
from saf_env.platforms import this_platform

MARK = "saf-test123/head/n0nce"


def gather(*only: str, **request: Any) -> dict[str, Any]:
    """What the probe says, run as on a node."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", probe.__file__],
        input=json.dumps({"only": only or list(probe.FACTS), **request}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def facts(*only: str, **request: Any) -> dict[str, Any]:
    answer = gather(*only, **request)
    assert answer["unknown"] == {}
    found: dict[str, Any] = answer["facts"]
    return found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray's own have it
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened


def test_a_fact_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    answer = gather("ray", "uv", "disk", uv=str(tmp_path / "nothing"), cluster_id="x")
    assert answer["facts"] == {}
    assert answer["unknown"]["disk"] == "the request does not say 'folders'"
    assert "No such file" in answer["unknown"]["uv"]
    assert answer["unknown"]["ray"] == "the request does not say 'node'"


def test_every_fact_is_there_or_accounted_for() -> None:
    answer = gather()
    assert answer["schema"] == 1
    assert answer["facts"].keys() | answer["unknown"].keys() == probe.FACTS.keys()


def test_the_digest_is_of_what_runs() -> None:
    seen = facts("interpreter")["interpreter"]
    digest = hashlib.sha256(Path(seen["executable"]).read_bytes())
    if seen["library"]:
        digest.update(Path(seen["library"]).read_bytes())
        if sys.platform == "linux":
            assert seen["library"] in Path("/proc/self/maps").read_text()
    assert seen["digest"] == digest.hexdigest() == probe.interpreter_digest()
    alone = subprocess.run(
        [sys.executable, "-I", "-S", probe.__file__, "--interpreter"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(alone.stdout) == seen


def test_the_platform_is_this_one() -> None:
    here = this_platform()
    assert here is not None
    seen = facts("platform")["platform"]
    assert (seen["sys_platform"], seen["machine"]) == (here.sys_platform, here.machine)
    assert seen["version"].startswith("macOS " if here.os == "macos" else "glibc ")
    assert not seen["translated"]


def test_the_address_is_own_or_not() -> None:
    def seen(address: str, *peers: str) -> Any:
        return facts("address", address=address, peers=list(peers))["address"]

    own = seen("127.0.0.1", "127.0.0.1", "beta.invalid")
    assert own["resolved"] == own["own"] == own["outgoing"] == ["127.0.0.1"]
    assert seen("192.0.2.1")["own"] == []  # TEST-NET-1, nobody's
    named = seen("localhost")
    assert "127.0.0.1" in named["own"]
    assert named["resolved"] == named["own"]


def test_only_a_host_in_a_tailnet_asks_for_it() -> None:
    assert not facts("tailnet", address="127.0.0.1", peers=[])["tailnet"]["member"]
    assert facts("tailnet", address="100.64.0.1", peers=[])["tailnet"]["member"]


def test_environments_tell_what_they_were_made_from(tmp_path: Path) -> None:
    for name, marker in (("base-1", {"environment_sha256": "d"}), ("base-2", {}), ("new-x", None)):
        (tmp_path / name).mkdir()
        if marker is not None:
            (tmp_path / name / probe.MARKER).write_text(json.dumps(marker))
    assert facts("environments", envs=str(tmp_path))["environments"] == [["base-1", "d"]]
    assert facts("environments", envs=str(tmp_path / "none"))["environments"] == []


def test_memory_disk_and_limits_make_sense(tmp_path: Path) -> None:
    seen = facts("memory", "disk", "shm", "nofile", folders={"x": str(tmp_path / "not" / "yet")})
    assert 0 < seen["memory"]["available"] <= seen["memory"]["total"]
    (place,) = seen["disk"]
    assert 0 < place["free"] <= place["total"]
    assert seen["nofile"]["soft"] is None or seen["nofile"]["soft"] > 0
    assert seen["shm"]["free"] <= seen["shm"]["total"]


def test_a_held_port_and_its_holder(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    seen = facts("ports", address="127.0.0.1", ports=[["gcs", port], ["worker", other]])["ports"]
    (held,) = seen["held"]
    assert (held["port"], held["name"]) == (port, "gcs")
    assert seen["address_error"] == ""
    if sys.platform == "linux":
        assert held["pid"] == os.getpid()
        assert held["command"]


def test_a_port_held_on_all_addresses_or_another_one() -> None:
    for address in ("0.0.0.0", "127.0.0.1"):
        with socket.socket() as opened:
            opened.bind((address, 0))
            opened.listen()
            port = opened.getsockname()[1]
            seen = facts("ports", address="127.0.0.1", ports=[["gcs", port]])["ports"]
            assert [held["port"] for held in seen["held"]] == [port]


def test_a_port_in_time_wait_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = listener.accept()
    server.close()  # the side that closes first keeps the port in TIME_WAIT
    assert client.recv(1) == b""
    client.close()
    listener.close()
    seen = facts("ports", address="127.0.0.1", ports=[["gcs", port]])["ports"]
    assert seen["held"] == []


def test_an_address_of_another_host() -> None:
    seen = facts("ports", address="192.0.2.1", ports=[["gcs", 45678]])["ports"]
    assert seen["address_error"]
    assert seen["held"] == []


def test_marked_processes_are_found(tmp_path: Path) -> None:
    raylet = tmp_path / "raylet"
    raylet.symlink_to("/bin/sleep")
    sleeping = [
        subprocess.Popen(["/bin/sleep", "60"], env={probe.MARK_VARIABLE: MARK}),
        subprocess.Popen([raylet, "60"], env={}),
        subprocess.Popen([raylet, "60"], env={probe.MARK_VARIABLE: "saf-test123/other/x"}),
        subprocess.Popen([raylet, "60"], env={probe.MARK_VARIABLE: "saf-another/head/x"}),
    ]
    ids = [process.pid for process in sleeping]
    try:
        for process in sleeping:  # until exec, a child shows its parent's environment
            while b"sleep" not in Path(f"/proc/{process.pid}/exe").readlink().name.encode():
                assert process.poll() is None
        seen = facts("ray", cluster_id="saf-test123", node="head")["ray"]
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
    assert [(p["pid"], p["mark"]) for p in seen["ours"]] == [(ids[0], MARK)]
    others = {p["pid"]: p["command"] for p in seen["others"] if p["pid"] in ids}
    assert others == {ids[1]: "raylet", ids[3]: "raylet"}


def test_a_process_without_mark_is_known_by_its_session() -> None:
    leader = subprocess.Popen(
        ["/bin/sh", "-c", "env -i /bin/sleep 60; true"],
        env={probe.MARK_VARIABLE: MARK},
        start_new_session=True,
    )
    try:
        seen: set[str] = set()
        while "sleep" not in seen:
            assert leader.poll() is None
            ours = facts("ray", cluster_id="saf-test123", node="head")["ray"]["ours"]
            seen = {p["command"] for p in ours if p["mark"] == MARK}
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a" * 64, []),
        ("", ["it is empty"]),
        ("a" * 64 + "\n", ["there is white space or a newline around it"]),
        ("a" * 8, ["it is shorter than 32 characters"]),
        ("é" * 40, ["it holds other characters than visible ASCII"]),
    ],
)
def test_tokens_are_described_not_told(tmp_path: Path, text: str, problems: list[str]) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    answer = facts("token", token=str(path))["token"]
    assert answer["problems"] == problems
    assert (answer["present"], answer["mode"], answer["owner"]) == (True, 0o644, os.getuid())
    assert answer["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert not text or text.strip() not in json.dumps(answer)


def test_no_token(tmp_path: Path) -> None:
    assert not facts("token", token=str(tmp_path / "token"))["token"]["present"]


def test_the_temp_dir_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "ray"
    before = facts("temp_dir", temp_dir=str(path))["temp_dir"]
    assert (before["exists"], before["place"], before["writable"]) == (False, str(tmp_path), True)
    path.mkdir(mode=0o700)
    after = facts("temp_dir", temp_dir=str(path))["temp_dir"]
    assert (after["exists"], after["mode"], after["link"]) == (True, 0o700, False)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert facts("temp_dir", temp_dir=str(link))["temp_dir"]["link"]


def test_nothing_runs_from_the_environment(tmp_path: Path) -> None:
    """A tampered environment cannot change what the probe says of it."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True, timeout=120
    )
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "evil.pth").write_text("import os; os._exit(3)\n")
    (site / "sitecustomize.py").write_text("raise SystemExit(4)\n")
    result = subprocess.run(
        [python, "-I", "-S", probe.__file__],
        input=json.dumps({"only": ["isolation", "environment", "files", "packages"]}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer = json.loads(result.stdout)
    startup = answer["facts"]["isolation"]["startup"]
    assert [Path(p).name for p in startup] == ["evil.pth", "sitecustomize.py"]
    assert answer["facts"]["environment"]["marker"] is None
    assert answer["facts"]["packages"] == []
    assert probe.MANIFEST in answer["unknown"]["files"]


def test_as_source_in_another_process() -> None:
    """As attestation does: no import, no side effect, a plain function."""
    namespace: dict[str, Any] = {"__name__": "saf_env_probe"}
    exec(compile(Path(probe.__file__).read_text(), "probe.py", "exec"), namespace)
    answer = namespace["gather"]({"only": ["interpreter", "platform"]})
    assert answer["facts"]["interpreter"]["digest"] == probe.interpreter_digest()

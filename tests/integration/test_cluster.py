"""A cluster that is well: what is true of it, seen from outside and from inside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Project

ASK_INSIDE = """
import json, os, sys
import ray

ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False)

@ray.remote(num_cpus=0)
def look():
    import sys
    usage = os.environ["RAY_USAGE_STATS_ENABLED"]
    return {"nice": os.nice(0), "python": sys.version.split()[0], "usage": usage}

nodes = {n["Labels"]["saf-node"]: n for n in ray.nodes() if n["Alive"]}
inside = {
    name: ray.get(look.options(resources={f"saf_node_{name}": 0.01}).remote(), timeout=60)
    for name in nodes
}
print(json.dumps({"nodes": nodes, "inside": inside}))
"""


@pytest.fixture(scope="module")
def cluster(main_project: Project) -> Project:
    main_project.ok("down")
    done = main_project.saf_env("up", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "linux is a container node; it runs natively" in done.stderr
    return main_project


@pytest.fixture(scope="module")
def plan(cluster: Project) -> dict[str, Any]:
    return cluster.plan()


def test_status_is_as_the_contract_says(cluster: Project, plan) -> None:
    status = json.loads(cluster.ok("status", "--json"))

    assert list(status) == ["schema", "cluster", "address", "nodes"]
    assert (status["schema"], status["cluster"], status["address"]) == (
        1,
        "local",
        plan["address"],
    )
    head, worker = status["nodes"]
    assert list(head) == [
        "name",
        "host",
        "kind",
        "role",
        "state",
        "platform",
        "python",
        "ray",
        "fingerprint",
        "planned_fingerprint",
        "advertise",
        "resources",
    ]
    assert (head["name"], head["role"], head["state"]) == ("head", "head", "ready")
    assert (worker["name"], worker["role"], worker["state"]) == ("linux", "worker", "ready")
    assert worker["kind"] == "native", "there is no engine, so its fallback is what runs"
    assert plan["nodes"][1]["fallback_reason"] == "no Docker engine answers on this machine"
    assert 'kind = "container"' in cluster.file.read_text(encoding="utf-8")
    for node in (head, worker):
        assert node["fingerprint"] == node["planned_fingerprint"]
        assert len(node["fingerprint"]) == 64
        assert node["ray"] == "2.60.0"
        assert node["python"] == plan["nodes"][0]["environment"]["python"]["version"]
        assert node["resources"][f"saf_node_{node['name']}"] == 1.0


def test_a_second_up_does_nothing_and_says_so(cluster: Project) -> None:
    before = {p.pid for p in cluster.processes() if p.is_leader}

    said = cluster.ok("up")

    assert "everything was up already" in said
    assert {p.pid for p in cluster.processes() if p.is_leader} == before


def listening(pids: set[int]) -> set[tuple[str, int]]:
    """Addresses (as the kernel's hex) and ports that the processes listen on."""
    inodes = set()
    for pid in pids:
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text("ascii").splitlines()[1:]:
            words = row.split()
            if words[3] == "0A" and words[9] in inodes:
                address, _, port = words[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    """IPv4 in one little-endian word, the last one of an IPv4 address mapped into IPv6."""
    mapped = len(address) == 8 or address.startswith("0" * 16 + "FFFF0000")
    return mapped and address.endswith("7F")


def test_every_port_is_from_the_plan(cluster: Project, plan) -> None:
    blocks: dict[int, str] = {}
    for node in plan["nodes"]:
        ports = dict(node["ports"])
        workers = range(ports.pop("min_worker"), ports.pop("max_worker") + 1)
        own = {**dict.fromkeys(workers, "worker")}
        own |= {number: name for name, number in ports.items() if number is not None}
        assert not blocks.keys() & own.keys(), "two nodes share a port"
        blocks |= own

    found = listening({p.pid for p in cluster.processes()})

    assert {port for _, port in found} <= blocks.keys()
    fixed = {port for port, name in blocks.items() if name != "worker"}
    assert fixed <= {port for _, port in found}
    private = ("dashboard", "dashboard_agent_listen", "ray_client_server", "runtime_env_agent")
    for address, port in found:
        assert is_loopback(address) or blocks[port] not in private, (address, blocks[port])


def test_the_token_is_nowhere_but_in_its_file(cluster: Project, plan) -> None:
    path = cluster.state / "token"
    token = path.read_bytes()
    assert len(token) == 64

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    folder = Path(plan["nodes"][0]["temp_dir"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for process in cluster.processes():
        for name in ("cmdline", "environ"):
            try:
                assert token not in Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
    places = [folder, cluster.home / ".saf" / "clusters", cluster.home / "lockfiles"]
    # The nodes reach it by a link in the cluster's folder, which is the same on every host.
    assert (folder / "token").readlink() == path
    found = [f for place in places for f in place.rglob("*") if f.is_file()]
    files = [f for f in found if f.resolve() != path.resolve()]
    assert [str(f) for f in files if token in f.read_bytes()] == []


def test_ray_knows_what_the_plan_says(cluster: Project, plan) -> None:
    head = plan["nodes"][0]
    python = Path(head["environment"]["path"]) / "bin" / "python"
    done = subprocess.run(
        [str(python), "-I", "-c", ASK_INSIDE, plan["address"], head["advertise"]],
        env={**head["variables"], "PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])

    assert set(seen["nodes"]) == {"head", "linux"}
    for node in plan["nodes"]:
        ray, inside = seen["nodes"][node["name"]], seen["inside"][node["name"]]
        assert ray["Labels"].items() >= node["labels"].items()
        assert ray["Resources"].items() >= node["resources"].items()
        assert ray["Resources"]["CPU"] == node["cpus"] == 1
        assert ray["NodeManagerPort"] == node["ports"]["node_manager"]
        assert inside["nice"] == os.nice(0), "workers are not slowed down beside other programs"
        assert inside["usage"] == "0"
        assert inside["python"] == node["environment"]["python"]["version"]
    assert seen["nodes"]["head"]["Labels"]["saf-mlx"] == "true"
    assert seen["nodes"]["linux"]["Labels"]["saf-mlx"] == "false"


def test_nobody_gets_in_without_the_token(cluster: Project, plan) -> None:
    head = plan["nodes"][0]
    python = Path(head["environment"]["path"]) / "bin" / "python"
    other = cluster.home / "other-token"
    other.write_text("0" * 64)

    done = subprocess.run(
        [str(python), "-I", "-c", ASK_INSIDE, plan["address"], head["advertise"]],
        env={
            **head["variables"],
            "PATH": "/usr/bin:/bin",
            "RAY_AUTH_TOKEN_PATH": str(other),
            "RAY_NUM_REDIS_GET_RETRIES": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode != 0
    assert "token is missing or incorrect" in done.stderr


def test_logs_tell_node_and_file(cluster: Project) -> None:
    lines = cluster.ok("logs").splitlines()

    assert any(line.startswith("head gcs_server.out: ") for line in lines)
    assert any(line.startswith("linux raylet.out: ") for line in lines)
    assert {line.split()[0] for line in cluster.ok("logs", "linux").splitlines()} == {"linux"}


def test_logs_follow_until_they_are_interrupted(cluster: Project, plan) -> None:
    log = Path(plan["nodes"][0]["temp_dir"]).parent / "head.log"
    following = cluster.start("logs", "head", "-f", "-n", "1")
    assert following.stdout is not None
    following.stdout.readline()
    with log.open("a", encoding="utf-8") as file:
        file.write("a line that was \x1b[31mnot\x1b[0m there\n")

    seen = ""
    while "a line that was" not in seen:
        seen = following.stdout.readline()
        assert seen, "it ended by itself"
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=20)

    assert seen == "head head.log: a line that was not there\n"
    assert following.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said


def test_a_reader_that_goes_away_is_no_error(cluster: Project) -> None:
    command = " ".join(f"'{word}'" for word in cluster.command("logs", "-n", "1000"))
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=cluster.home,
        env=cluster.variables(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"COLUMNS": "40"}, id="40 columns"),
        pytest.param({"TERM": "dumb", "LANG": "C", "LC_ALL": "C"}, id="dumb terminal, LANG=C"),
        pytest.param({"PYTHONIOENCODING": "ascii"}, id="ASCII only"),
    ],
)
def test_any_terminal_will_do(cluster: Project, environ: dict[str, str]) -> None:
    done = cluster.saf_env("status", environ=environ)

    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 nodes ready" in done.stdout
    assert "\x1b" not in done.stdout
    if "COLUMNS" in environ:
        assert max(map(len, done.stdout.splitlines()[1:])) <= 40


def test_a_linked_project_is_the_same_project(cluster: Project, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(cluster.home)
    main = cluster.command()[2]

    done = subprocess.run(
        [sys.executable, "-I", main, "status", "--json", "--project", str(link)],
        cwd="/",
        env=cluster.variables(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert {n["state"] for n in json.loads(done.stdout)["nodes"]} == {"ready"}


def test_status_writes_nothing(cluster: Project) -> None:
    def files() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in cluster.state.iterdir()}

    before = files()
    cluster.ok("status")

    assert files() == before


@pytest.fixture
def foreign_ray(plan, tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's Ray, with ports of its own."""
    link = tmp_path / "environment"  # Ray cannot live with the blank in the project's path
    link.symlink_to(plan["nodes"][0]["environment"]["path"])
    temp = Path("/tmp") / f"foreign-{os.getpid()}"  # short: a UNIX socket lies in it
    process = subprocess.Popen(
        [
            *(str(link / "bin" / "python"), "-m", "ray.scripts.scripts", "start", "--head"),
            *("--block", "--port=21900", "--include-dashboard=false", f"--temp-dir={temp}"),
            *("--num-cpus=1", "--min-worker-port=21910", "--max-worker-port=21990"),
            *("--ray-client-server-port=21901", "--dashboard-agent-listen-port=21902"),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture
def bystander(cluster: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has our words, works in our folder and carries another cluster's mark."""
    program = "import time; print(1, flush=True); time.sleep(300)"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "ray::IDLE", "raylet", str(cluster.home / ".saf")],
        cwd=cluster.home,
        env={"SAF_ENV_NODE": "saf-0000000000/head/1"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_what_is_not_ours_lives_on(cluster: Project, foreign_ray, bystander) -> None:
    other = cluster.beside("other", 21200)
    said = other.saf_env("up", timeout=600)
    try:
        assert said.returncode == 0, said.stderr
        assert "stale-ray" in said.stderr, "a foreign Ray is told of, and no reason to stop"
        assert set(other.status().values()) == {"ready"}
        assert cluster.status() == {"head": "ready", "linux": "ready"}

        assert other.ok("down") == "stopped: head, linux\n"
        assert other.processes() == []
        assert set(other.status().values()) == {"absent"}
        assert cluster.status() == {"head": "ready", "linux": "ready"}
        assert (foreign_ray.poll(), bystander.poll()) == (None, None)

        assert cluster.ok("down") == "stopped: head, linux\n"
        assert (foreign_ray.poll(), bystander.poll()) == (None, None)
    finally:
        other.remove()


def test_down_leaves_nothing_and_says_so_twice(cluster: Project, plan) -> None:
    cluster.ok("down")

    assert cluster.ok("down") == "nothing of cluster local was running\n"
    assert cluster.processes() == []
    numbers = {n for node in plan["nodes"] for n in node["ports"].values() if n}
    ours = {port for _, port in listening({int(p.name) for p in Path("/proc").glob("[0-9]*")})}
    assert not numbers & ours
    assert not (cluster.state / "state.json").exists()

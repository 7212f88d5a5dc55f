"""Docker Compose accepts what is rendered for every network of containers, without a warning."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saf_env.lock.model import EnvironmentLock, Interpreter, Lock, Toolchain
from saf_env.plan import compose
from saf_env.plan.build import build
from saf_env.plan.model import ClusterPlan
from saf_env.spec.parse import parse

PLATFORM = "linux-x86_64"
CLUSTER = f"""
[cluster]
name = "config"
[python]
version = "3.12"
[environment]
requires = ["ray==2.60.0"]
[containers.tailscale]
image = "tailscale/tailscale:v1@sha256:{"1" * 64}"
auth_key_file = "a key of $USER"
[hosts.here]
address = "100.64.0.1"
platform = "{PLATFORM}"
[[nodes]]
name = "head"
host = "here"
kind = "container"
role = "head"
cpus = 2
[[nodes]]
name = "one"
host = "here"
kind = "container"
memory = "1.5GiB"
NETWORK
[[nodes]]
name = "two"
host = "here"
kind = "container"
resources = {{ tape = 2 }}
"""
NETWORKS = {
    "bridge": 'network = "bridge"',
    "host": 'network = "host"',
    "tailscale": 'network = "tailscale"\naddress = "100.64.0.9"',
}
FOLDERS = ["plain", "a b", "$HOME", "${UNSET:?no}", "a $$ 'b' \"c\" #d: é"]


def locked() -> Lock:
    text = "ray==2.60.0 \\\n    --hash=sha256:" + "a" * 64 + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    environments = {n: EnvironmentLock(n, (), text, digest) for n in ("base", "driver")}
    interpreter = Interpreter(PLATFORM, "3.12.1", "system", "3.12.1 (main)", "", "c" * 64)
    toolchains = {
        node: Toolchain(
            node=node,
            platforms=(PLATFORM,),
            interpreters={PLATFORM: interpreter},
            uv_version="0.13.9",
            uv_wheels={PLATFORM: "d" * 64},
            environment="driver" if node == "driver" else "base",
            environment_sha256=digest,
            base_image="debian@sha256:" + "b" * 64,
        )
        for node in ("head", "one", "two", "driver")
    }
    return Lock("config", "e" * 64, "f" * 64, "3.12.1", environments, toolchains, {})


def planned(home: Path, network: str) -> ClusterPlan:
    return build(parse(CLUSTER.replace("NETWORK", NETWORKS[network])), locked(), home)


def config(file: Path, *options: str) -> str:
    """What Compose makes of ``file``; it must have nothing to say against it."""
    done = subprocess.run(
        ["docker", "compose", "--file", str(file), "config", *options],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd="/",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_compose_takes_it_as_it_is_meant(
    network: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / folder
    home.mkdir()
    shutil.copy(compose.TEMPLATE, home)
    monkeypatch.setattr(compose, "TEMPLATE", home / compose.TEMPLATE.name)
    plan = planned(home, network)
    runs = {node.name: "word" for node in plan.containers}
    handed = compose.Handed("1000:1000", home / "token", home / "a key of $USER")
    file = home / "compose.json"
    file.write_text(compose.rendered(plan, plan.containers, runs, handed), encoding="utf-8")

    assert config(file, "--quiet") == ""

    found: dict[str, Any] = json.loads(config(file, "--format", "json"))
    services = [service for node in plan.containers for service in compose.services_of(node)]
    assert sorted(found["services"]) == sorted(services)
    # What Compose prints is a compose file again, in which a "$" is doubled.
    literal = str(home).replace("$", "$$")
    assert found["secrets"]["token"]["file"] == f"{literal}/token"
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["logging"]["driver"] == "local", name
        assert "interval" in service["healthcheck"], name
        assert service["healthcheck"]["test"], name
    if network == "tailscale":
        sidecar = found["services"]["one-tailscale"]
        assert sidecar["environment"]["TS_AUTHKEY"] == "file:/run/secrets/tailscale"
        assert sidecar["environment"]["TS_HOSTNAME"] == "config-one"
        assert sidecar["cap_add"] == ["NET_ADMIN", "DAC_OVERRIDE"]
        assert found["secrets"]["tailscale"]["file"] == f"{literal}/a key of $$USER"
        assert found["services"]["one"]["network_mode"] == "service:one-tailscale"

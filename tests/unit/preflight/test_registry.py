"""The catalogue of checks: their names are a contract."""

from __future__ import annotations

from saf_env.preflight.registry import AREAS, CHECKS, IDS


def test_the_catalogue() -> None:
    assert IDS == (
        "python-version",
        "python-build",
        "python-intact",
        "python-isolated",
        "os-version",
        "python-arch",
        "packages-locked",
        "packages-extra",
        "packages-intact",
        "uv-version",
        "lock-fresh",
        "packages-agree",
        "ray-build",
        "lock-same",
        "platform",
        "worker-ports",
        "memory",
        "disk",
        "shm",
        "nofile",
        "temp-dir",
        "stale-ray",
        "environment-variables",
        "cpu",
        "swap",
        "sleep",
        "firewall",
        "metal",
        "filevault-boot",
        "address",
        "advertised-name",
        "ports-free",
        "ports-disjoint",
        "clock",
        "hostname",
        "head-reachable",
        "peer-matrix",
        "latency",
        "bandwidth",
        "mtu",
        "tailnet",
        "token",
        "ssh-host-key",
        "exposure",
        "docker-engine",
        "docker-rights",
        "docker-compose",
        "docker-vm",
        "image-present",
        "container-user",
    )
    for check in CHECKS:
        assert check.title
        assert check.explain.endswith(".")
        assert check.remedy.endswith(".")


def test_every_check_is_about_something() -> None:
    assert sorted(name for names in AREAS.values() for name in names) == sorted(IDS)

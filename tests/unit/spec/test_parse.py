"""Cluster files, good and bad: what they become, and what the user is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import saf_env
from saf_env.errors import ClusterFileError
from saf_env.plan.model import ClusterPlan
from saf_env.spec.model import DEFAULT_PORTS_PER_NODE
from saf_env.spec.parse import MAX_BYTES, parse, read, size_in_bytes
from saf_env.spec.rules import MOST_PORTS, NODE_PORTS

GOOD = """
[cluster]
name = "studio"
[python]
version = "3.13"
[environment]
requires = ["ray[default]==2.60.0", "numpy"]
[environment.groups]
mlx = ["mlx"]
[hosts.alpha]
[[nodes]]
name = "one"
host = "alpha"
kind = "native"
role = "head"
groups = ["mlx"]
[[nodes]]
name = "two"
host = "alpha"
kind = "container"
fallback = "native"
cpus = 4
memory = "1.5GiB"
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(ClusterFileError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    return list(caught.value.mistakes)


def only_mistake(text: str) -> str:
    found = mistakes(text)
    assert len(found) == 1, found
    return found[0]


def test_a_good_file_becomes_the_values_it_says() -> None:
    spec = parse(GOOD)
    assert (spec.name, spec.port, spec.ports_per_node) == ("studio", 6380, 100)
    assert spec.head.name == "one"
    assert spec.head.groups == ("mlx",)
    two = spec.nodes[1]
    assert (two.kind, two.role, two.fallback, two.cpus) == ("container", "worker", "native", 4)
    assert two.memory == 3 * 2**29
    assert spec.environment.groups == {"mlx": ("mlx",)}


def test_the_projects_own_files_are_good() -> None:
    root = Path(__file__).parents[3]
    assert parse(read(root / "cluster.toml")).name == "local"
    assert parse(read(root / "examples" / "studio.toml")).name == "studio"


def test_trusted_text_gives_the_same_values() -> None:
    assert parse(GOOD, trusted=True) == parse(GOOD)


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace('name = "studio"', 'nmae = "studio"\nport = 70000')
    text = text.replace('kind = "native"', 'kind = "nativ"').replace('"numpy"', '"numpy", "-r x"')
    text = text.replace('groups = ["mlx"]', 'groups = ["mxl"]')
    found = "\n".join(mistakes(text))
    assert "cluster.name: missing" in found
    assert "cluster.nmae: unknown key; did you mean 'name'?" in found
    assert "cluster.port: found 70000, expected a port from 1024 to 65535" in found
    assert 'nodes[0].kind: found "nativ"' in found
    assert "did you mean 'native'?" in found
    assert 'environment.requires[2]: found "-r x"' in found
    assert "nodes[0].groups: there is no group \"mxl\"; did you mean 'mlx'?" in found


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "two"', 'name = "one"', '2 nodes are called "one"'),
        ('name = "two"', 'name = "driver"', "saf-env's own"),
        ('role = "head"', 'role = "worker"', 'no node has role = "head"'),
        ("cpus = 4", 'role = "head"', "2 nodes have role"),
        ('host = "alpha"\nkind = "container"', 'host = "alhpa"\nkind = "container"', "no host"),
        ("[hosts.alpha]", "[hosts.alpha]\n[hosts.idle]", "hosts.idle: no node runs on it"),
        ('name = "studio"', 'name = "studio"\nport = 6379', "Redis"),
        ('name = "studio"', 'name = "studio"\nport = 65400', "above 65535"),
        ("cpus = 4", "port = 6400", "overlap"),
        ('role = "head"', 'role = "head"\nport = 7000', "cluster.port"),
        ('role = "head"', 'role = "head"\nfallback = "native"', "only a container node"),
        ("cpus = 4", "cpus = 0", "a whole number from 1"),
        ("cpus = 4", "cpus = -1", "a whole number from 1"),
        ("cpus = 4", "cpus = nan", "a whole number from 1"),
        ("cpus = 4", "cpus = true", "a whole number from 1"),
        ('memory = "1.5GiB"', 'memory = "lots"', "a size such as"),
        ("cpus = 4", "cpus = 85", "nodes[1].cpus: found 85, and a node has 88 ports"),
        ("cpus = 4", "cpus = 400", "set cluster.ports_per_node to 416 or more"),
        ("cpus = 4", "cpus = 1985", "a node can have 1984 at most"),
        ("cpus = 4", "resources = { saf_x = 1 }", "a resource name"),
        ("cpus = 4", "resources = { tape = inf }", "a number above 0"),
        ("cpus = 4", "resources = { tape = nan }", "a number above 0"),
        ('version = "3.13"', 'version = "new"', "expected a version"),
        ('version = "3.13"', 'version = "3.9"', "expected one of CPython 3.10 to 3.14"),
        ('version = "3.13"', 'version = ">3.12,<3.11"', "expected one of CPython 3.10 to 3.14"),
        ('"numpy"', '"numpy @ https://example.org/n.whl"', "cannot be locked by digest"),
        ('"numpy"', '"./numpy"', "not a requirement"),
        ('"ray[default]==2.60.0", ', "", "every node needs Ray"),
        ('mlx = ["mlx"]', 'mlx = ["mlx"]\ndriver = []', "saf-env's own"),
        ("[environment.groups]", 'exclude_newer = "2026-13-40"\n[environment.groups]', "calendar"),
        ('version = "3.13"', 'version = "3.13"\nsource = "archive"', "python.archives: missing"),
    ],
)
def test_each_mistake_is_told_by_itself(old: str, new: str, told: str) -> None:
    assert old in GOOD
    assert any(told in mistake for mistake in mistakes(GOOD.replace(old, new)))


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        "-a",
        "A",
        "é",
        "a b",
        "a\\nb",
        "a\\n",
        "$(rm)",
        "a;b",
        "",
        "a" * 64,
        "1a",
        "\u043e",
    ],
)
def test_unsafe_names_are_refused_everywhere(name: str) -> None:
    for old in ('name = "studio"', 'name = "two"', 'host = "alpha"\nkind = "container"'):
        new = old.replace(old.split('"')[1], name, 1)
        assert any("a name: a-z, 0-9 and '-'" in m for m in mistakes(GOOD.replace(old, new))), new


@given(st.text(max_size=70))
def test_no_name_gets_through_that_is_not_safe(name: str) -> None:
    import re

    text = GOOD.replace('"two"', json.dumps(name))
    try:
        spec = parse(text)
    except ClusterFileError:
        return
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,62}", spec.nodes[1].name)


@given(st.text(max_size=300))
def test_any_text_gives_a_cluster_or_a_clear_error(text: str) -> None:
    with pytest.raises(ClusterFileError):
        parse(text)


def test_whole_numbers_may_be_written_as_floats_and_dates_without_quotes() -> None:
    text = GOOD.replace("cpus = 4", "cpus = 4.0")
    text = text.replace("[environment.groups]", "exclude_newer = 2026-11-10\n[environment.groups]")
    spec = parse(text)
    assert spec.nodes[1].cpus == 4
    assert isinstance(spec.nodes[1].cpus, int)
    assert spec.environment.exclude_newer == "2026-11-10"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"[cluster\n", "not valid TOML"),
        (b'[cluster]\nname = "a"\nname = "b"\n', "not valid TOML"),
        (b"a = " + b"[" * 20000, "TOML|nested"),
    ],
)
def test_text_that_is_no_cluster_file(data: bytes, told: str) -> None:
    with pytest.raises(ClusterFileError, match=told):
        parse(data.decode())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ClusterFileError, match="there is no cluster file"):
        read(tmp_path / "cluster.toml")
    with pytest.raises(ClusterFileError, match="it is not a file"):
        read(tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF\xff\xfe")
    with pytest.raises(ClusterFileError, match="UTF-8"):
        read(binary)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ClusterFileError, match="it is not a file"):
        read(pipe)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ClusterFileError, match="larger than"):
        read(large)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert parse(read(file)) == parse(GOOD)


def test_cpus_that_the_ports_just_suffice_for() -> None:
    assert parse(GOOD.replace("cpus = 4", "cpus = 84")).nodes[1].cpus == 84
    larger = GOOD.replace('name = "studio"', 'name = "studio"\nports_per_node = 2000')
    assert parse(larger.replace("cpus = 4", "cpus = 1984")).nodes[1].cpus == 1984


def test_the_numbers_of_ports_are_those_of_plan_and_schema(plan: ClusterPlan) -> None:
    ports = plan.head.ports
    assert ports.max_worker - ports.min_worker + 1 == DEFAULT_PORTS_PER_NODE - NODE_PORTS
    path = Path(saf_env.__file__).parent / "schemas" / "cluster.json"
    cluster = json.loads(path.read_text(encoding="utf-8"))["properties"]["cluster"]
    assert cluster["properties"]["ports_per_node"]["maximum"] == MOST_PORTS


def test_sizes() -> None:
    assert size_in_bytes("512MiB") == 512 * 2**20
    assert size_in_bytes("2GB") == 2 * 10**9
    assert size_in_bytes("0.5TiB".replace("0.5", "1.5")) == 3 * 2**39


def test_hosts_that_contradict_each_other() -> None:
    several = GOOD.replace("[hosts.alpha]", "[hosts.alpha]\n[hosts.beta]")
    several = several.replace(
        'host = "alpha"\nkind = "container"', 'host = "beta"\nkind = "container"'
    )
    found = "\n".join(mistakes(several))
    assert "hosts.alpha and hosts.beta: only one host can be this machine" in found
    assert "hosts.beta.address: missing, needed where there are several hosts" in found
    with_ssh = several.replace("[hosts.beta]", '[hosts.beta]\naddress = "b"\nssh = "b"')
    assert "hosts.beta.platform: missing" in "\n".join(mistakes(with_ssh))


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00:0:0::1", "fd00::1"),
        ("Alpha.lan", "alpha.lan", "alpha.lan"),
    ],
)
def test_two_hosts_with_one_address(one: str, other: str, shown: str) -> None:
    first = f'[hosts.alpha]\naddress = "{one}"\n[hosts.beta]\nssh = "b"\naddress = "{other}"'
    found = "\n".join(mistakes(GOOD.replace("[hosts.alpha]", first)))
    assert f'hosts: address "{shown}" is given to 2 hosts' in found

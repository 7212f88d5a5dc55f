"""``images/engine.sh`` and ``images/base.sh``, with real engines, packages and images.

They need root on Debian, as the scripts do. What would stop the engine of the machine, or take away
its plugins, is done to an engine in namespaces of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

IMAGES = Path(__file__).parents[2] / "images"
ENGINE = str(IMAGES / "engine.sh")
BASE = str(IMAGES / "base.sh")
PLUGINS = "/usr/local/lib/docker"

# /run hides the machine's engine, and holds the record of ours. An engine does not start on a
# folder that another one uses. All of it, and every process in it, is gone when the command ends.
OWN_ENGINE = """
for folder in /run /var/lib/docker /var/log; do mount -t tmpfs tmpfs $folder; done
"""
# The folder of the plugins may be missing on a machine whose plugins came with its packages.
NO_PLUGINS = f"""
mkdir -p {PLUGINS}
mount -t tmpfs tmpfs {PLUGINS}
"""
SERVER = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => 8000, Listen => 1) or die;
while (my $client = $server->accept) {
    <$client>; print $client "HTTP/1.0 200 OK\\r\\n\\r\\nserved"; close $client;
}
"""


def run(*argv: str, timeout: float = 120, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        check=False,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )


def output(*argv: str) -> str:
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apart(script: str, *, network: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a script as on a machine of its own, with the same files: mounts, processes, network."""
    spaces = ["--mount", "--pid", "--mount-proc", "--kill-child", *([] if network else ["--net"])]
    return run("unshare", *spaces, "sh", "-euc", script, DOCKER_HOST="")


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A refusal says what is wrong and what to do, by code and in words."""
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(r"^error: .+\nhint: .+", done.stderr, re.MULTILINE)
    for word in words:
        assert word in done.stderr


def digests(*folders: str) -> dict[str, str]:
    """What the files below some folders hold."""
    files = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def engine() -> str:
    """The engine of this machine, up; what ``start`` says about it."""
    done = run("sh", ENGINE, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Base:
    tag: str
    said: str


@pytest.fixture(scope="module")
def bases() -> Iterator[list[Base]]:
    """Two base images, made at once under circumstances that differ."""
    tags = [f"saf-env-test-{os.getpid()}:{name}" for name in ("one", "two")]
    differ: list[dict[str, str]] = [
        {"LANG": "C.UTF-8"},
        {"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8"},
    ]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        differ[1]["TMPDIR"] = folder
        running = [
            subprocess.Popen(
                ["sh", BASE, tag],
                env=os.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for tag, environ in zip(tags, differ, strict=True)
        ]
        done = [process.communicate(timeout=600) for process in running]
        left = list(Path(folder).iterdir())
    try:
        assert [process.returncode for process in running] == [0, 0], done
        assert left == [], "the folder in which it was made is gone"
        yield [Base(tag, out) for tag, (out, _) in zip(tags, done, strict=True)]
    finally:
        run("docker", "rmi", *tags)


@pytest.fixture
def public() -> Iterator[Path]:
    """The scripts, in a folder that every user may read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        shutil.copytree(IMAGES, name, dirs_exist_ok=True)
        Path(name).chmod(0o755)
        yield Path(name)


def test_second_start_changes_nothing_and_is_quick(engine: str) -> None:
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        done = run("sh", ENGINE, "start")
        seconds.append(time.monotonic() - begun)
        assert (done.returncode, done.stdout, done.stderr) == (0, engine, "")
    assert min(seconds) < 1


def test_status_names_what_docker_names(engine: str) -> None:
    status = output("sh", ENGINE, "status")
    assert status == engine
    versions = dict(re.findall(r"^(\w+) +([^\s,]+)", status, re.MULTILINE))
    assert versions["engine"] == output("docker", "version", "-f", "{{.Server.Version}}").strip()
    assert versions["compose"] in output("docker", "compose", "version", "--short")
    assert versions["buildx"] in output("docker", "buildx", "version")


def test_own_engine_starts_once_and_stops() -> None:
    steps = ("start", "start", "stop", "status || echo code $?", "stop")
    done = apart(OWN_ENGINE + "".join(f"sh {shlex.quote(ENGINE)} {step}\necho\n" for step in steps))
    assert done.returncode == 0, done.stderr
    first, second, stopped, status, left = done.stdout.strip().split("\n\n")
    assert re.search(r"^engine +\S+, started by images/engine.sh \(process \d+\)$", first, re.M)
    assert second == first
    assert stopped == "the engine is stopped"
    assert re.search(r"^engine +none answers$", status, re.M)
    assert status.endswith("code 4")
    assert "started no engine" in left


def test_stop_leaves_a_foreign_engine_alone() -> None:
    # The process of the record lives, but it is not the one that was started under that number.
    stop = f'echo "$$ 1 process" >/run/saf-env-engine; sh {shlex.quote(ENGINE)} stop; echo alive'
    done = apart(OWN_ENGINE + stop)
    assert "any other is left alone\nalive" in done.stdout


def test_two_starts_at_once_make_one_engine() -> None:
    start = f"sh {shlex.quote(ENGINE)}"
    done = apart(OWN_ENGINE + f"{start} & {start}; wait; pgrep -cx dockerd")
    *said, engines = done.stdout.splitlines()
    assert engines == "1", done.stderr
    assert len(set(said)) == 3, "both say the same about it"


def test_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text("{ not json", encoding="utf-8")
    broken = f"mkdir -p /etc/docker; mount --bind {shlex.quote(str(tmp_path))} /etc/docker\n"
    done = apart(OWN_ENGINE + broken + f"sh {shlex.quote(ENGINE)}")
    refused(done, 6, "the engine ended at once", "daemon.json", "/var/log/saf-env-engine.log")


def test_missing_plugins_come_from_apt_and_leave_it_as_it_was() -> None:
    before = digests("/etc/apt", "/var/lib/apt")
    done = apart(NO_PLUGINS + f"sh {shlex.quote(ENGINE)}; ls {PLUGINS}/*", network=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("docker-buildx\ndocker-compose\n")
    assert digests("/etc/apt", "/var/lib/apt") == before


def test_unsigned_packages_are_refused_whatever_apt_is_told(tmp_path: Path) -> None:
    architecture = output("dpkg", "--print-architecture").strip()
    package = tmp_path / "package"
    plugin = package / "usr/libexec/docker/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("#!/bin/sh\necho Docker Compose version 2.99.0\n", encoding="utf-8")
    plugin.chmod(0o755)
    control = package / "DEBIAN" / "control"
    control.parent.mkdir()
    fields = f"Package: docker-compose\nVersion: 2.99.0\nArchitecture: {architecture}\n"
    control.write_text(fields + "Maintainer: nobody\nDescription: a forgery\n", encoding="utf-8")
    # Not tmp_path: apt reads as its own user.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        mirror = Path(name)
        mirror.chmod(0o755)
        output("dpkg-deb", "--build", str(package), str(mirror / "forged.deb"))
        content = (mirror / "forged.deb").read_bytes()
        index = mirror / "dists/trixie/main" / f"binary-{architecture}" / "Packages"
        index.parent.mkdir(parents=True)
        index.write_text(
            f"{control.read_text(encoding='utf-8')}Filename: forged.deb\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n",
            encoding="utf-8",
        )
        listed = f"{hashlib.sha256(index.read_bytes()).hexdigest()} {index.stat().st_size}"
        (mirror / "dists/trixie/Release").write_text(
            "Codename: trixie\nSuite: trixie\nDate: Sat, 01 Aug 2026 00:00:00 UTC\nSHA256:\n"
            f" {listed} {index.relative_to(mirror / 'dists/trixie')}\n",
            encoding="utf-8",
        )
        sources = f"""
            mount -t tmpfs tmpfs /etc/apt/sources.list.d
            mount -t tmpfs tmpfs /etc/apt/apt.conf.d
            . /etc/os-release
            echo "deb [trusted=yes] file:{mirror} $VERSION_CODENAME main" \\
                >/etc/apt/sources.list.d/forged.list
            echo 'APT::Get::AllowUnauthenticated "true";' >/etc/apt/apt.conf.d/1
            echo 'Acquire::AllowInsecureRepositories "true";' >/etc/apt/apt.conf.d/2
        """
        done = apart(NO_PLUGINS + sources + f"sh {shlex.quote(ENGINE)}; ls {PLUGINS}")
    refused(done, 3, "is not signed")


def test_start_needs_root(public: Path) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    refused(run(*nobody, "sh", str(public / "engine.sh")), 4, "needs root", "sudo")
    refused(run(*nobody, "sh", str(public / "base.sh"), "a:b"), 4, "needs root", "sudo")
    status = run(*nobody, "sh", str(public / "engine.sh"), "status")
    assert (status.returncode, status.stderr) == (4, "")


def test_other_distributions_are_told_what_to_do(tmp_path: Path) -> None:
    other = tmp_path / "os-release"
    other.write_text('PRETTY_NAME="Fedora Linux 42"\nID=fedora\n', encoding="utf-8")
    mount = f"mount --bind {shlex.quote(str(other))} $(readlink -f /etc/os-release)\n"
    for script in (ENGINE, f"{BASE} a:b"):
        done = apart(OWN_ENGINE + mount + f"sh {script}")
        refused(done, 4, "this is Fedora Linux 42", "documentation of your distribution")


def test_an_engine_elsewhere_is_not_replaced() -> None:
    done = run("sh", ENGINE, DOCKER_HOST="unix:///run/no-such-engine.sock")
    refused(done, 4, "no engine answers at unix:///run/no-such-engine.sock", "unset DOCKER_HOST")
    done = run("sh", ENGINE, DOCKER_CONTEXT="no-such-context")
    refused(done, 4, "no-such-context", "docker context use default")


@pytest.mark.parametrize(
    "arguments",
    [[ENGINE, "restart"], [ENGINE, "start", "now"], [BASE], [BASE, "a:b", "1x"], [BASE, "-a"]],
    ids=lambda arguments: " ".join(arguments[1:]),
)
def test_wrong_arguments_show_the_usage(arguments: list[str]) -> None:
    refused(run("sh", *arguments), 2, "usage: sh images/")


def test_bad_name_of_an_image_is_refused_before_the_work() -> None:
    refused(run("sh", BASE, "Upper:case", timeout=20), 2, "'Upper:case' cannot be the name")


def test_base_needs_an_engine() -> None:
    refused(apart(OWN_ENGINE + f"sh {shlex.quote(BASE)} a:b"), 4, "sh images/engine.sh")


def test_base_of_the_same_packages_is_the_same_image(bases: list[Base]) -> None:
    one, two = bases
    assert two.said == one.said
    match = re.fullmatch(r"id (sha256:[0-9a-f]{64})\ndigest (sha256:[0-9a-f]{64})\n", one.said)
    assert match
    for base in bases:
        (image,) = json.loads(output("docker", "image", "inspect", base.tag))
        assert (image["Id"], image["RootFS"]["Layers"]) == (match[1], [match[2]])


def test_base_holds_nothing_of_the_machine(bases: list[Base], tmp_path: Path) -> None:
    output("docker", "save", f"--output={tmp_path}/image.tar", bases[0].tag)
    with tarfile.open(tmp_path / "image.tar") as image:
        (manifest,) = json.load(image.extractfile("manifest.json") or io.BytesIO())
        (layer,) = manifest["Layers"]
        with tarfile.open(fileobj=image.extractfile(layer)) as content:
            names = {name.removeprefix("./") for name in content.getnames()}
            files = {
                member.name.removeprefix("./"): (content.extractfile(member) or io.BytesIO()).read()
                for member in content
                if member.isfile() and member.name.startswith(("./etc/", "./var/lib/apt/"))
            }
    assert not names & {"etc/resolv.conf", "etc/hostname", "etc/hosts", "etc/machine-id"}
    emptied = ("dev", "run", "tmp", "var/log", "var/cache/apt", "usr/local/share/ca-certificates")
    assert [name for name in names if name.startswith(tuple(f"{e}/" for e in emptied))] == []

    uris = output("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    hosts = {urlsplit(uri).hostname or "" for uri in uris} - {""}
    assert hosts
    named = [name for name, text in files.items() if any(h.encode() in text for h in hosts)]
    assert named == [], "the mirrors of the machine"

    packaged = re.findall(rb"^[^#!\s].*$", files["etc/ca-certificates.conf"], re.MULTILINE)
    trusted = files["etc/ssl/certs/ca-certificates.crt"].count(b"BEGIN CERTIFICATE")
    assert trusted == len(packaged), "the authorities of the package, no others"


def test_published_port_of_a_bridge_network_is_reached(bases: list[Base]) -> None:
    name = f"saf-env-test-{os.getpid()}"
    output("docker", "network", "create", name)
    try:
        server = ("--init", "--publish=127.0.0.1::8000", bases[0].tag, "perl", "-e", SERVER)
        output("docker", "run", "--detach", f"--name={name}", f"--network={name}", *server)
        address = output("docker", "port", name, "8000").strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 20
        while True:
            try:
                with opener.open(f"http://{address}", timeout=5) as answer:
                    assert answer.read() == b"served"
                return
            except OSError:
                assert time.monotonic() < deadline, output("docker", "logs", name)
                time.sleep(0.1)
    finally:
        run("docker", "rm", "--force", name)
        run("docker", "network", "rm", name)


def test_image_is_built_on_the_base(bases: list[Base], tmp_path: Path) -> None:
    tag = f"saf-env-test-{os.getpid()}:built"
    dockerfile = "ARG BASE\nFROM ${BASE}\nRUN --mount=type=tmpfs,target=/t echo 7 >/made\n"
    (tmp_path / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    try:
        base = f"BASE={bases[0].tag}"
        output("docker", "build", "--no-cache", "-t", tag, "--build-arg", base, str(tmp_path))
        assert output("docker", "run", "--rm", tag, "cat", "/made") == "7\n"
    finally:
        run("docker", "rmi", tag)

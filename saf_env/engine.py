"""The Docker engine of one host: its command line to act, its SDK to look.

Nothing here is imported, and no process is started, for a cluster without containers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saf_env.errors import BringUpError, HostUnreachableError, SafEnvError
from saf_env.transports.base import NETWORK_VARIABLES, CommandResult, FileTransport, Transport

if TYPE_CHECKING:
    from docker import APIClient

# What decides which engine is meant and how it is reached.
_PASSED = (*NETWORK_VARIABLES, "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK")
_SECONDS = 15.0
"""What a look may take; a healthy engine answers in 0.05 s."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

NO_CLIENT = "there is no docker command on this machine"

_PATH = {"PATH": "/usr/bin:/bin"}

# Where Docker Engine, Docker Desktop, OrbStack, Colima, Rancher Desktop and a rootless engine have
# their sockets, and whether this user may write to them.
_SOCKETS = """
for s in /var/run/docker.sock "$PWD/.docker/run/docker.sock" "$PWD/.orbstack/run/docker.sock" \\
    "$PWD/.colima/default/docker.sock" "$PWD/.rd/docker.sock" "/run/user/$(id -u)/docker.sock"; do
    if [ -S "$s" ] && [ -w "$s" ]; then echo "yes $s"; elif [ -S "$s" ]; then echo "no $s"; fi
done
"""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Engine:
    """The engine that the docker command line of a host talks to (its context, ``DOCKER_HOST``).

    Attributes:
        transport: the host.
        environ: the variables of the user's shell there.
    """

    transport: Transport
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def variables(self) -> dict[str, str]:
        """The environment of every docker command."""
        passed = {k: v for k in _PASSED if (v := self.environ.get(k)) is not None}
        docker = {k: v for k, v in self.environ.items() if k.startswith("DOCKER_")}
        return {"PATH": os.defpath, **passed, **docker}

    def run(
        self,
        *arguments: str,
        timeout: float = _SECONDS,
        stdin: str = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """Run ``docker ARGUMENTS``.

        Args:
            arguments: as on its command line; never a secret.
            timeout: seconds, see :class:`saf_env.transports.base.Transport`.
            stdin: what it reads.
            cwd: the folder it runs in.
        """
        return self.transport.run(
            ["docker", *arguments], env=self.variables(), timeout=timeout, stdin=stdin, cwd=cwd
        )

    def facts(self) -> dict[str, Any]:
        """What the checks want to know of the engine.

        Returns:
            ``client``: version of the command line, empty without one; ``compose`` and ``buildx``:
            versions of the plugins, empty without them; ``compose_alone``: of a ``docker-compose``
            that is no plugin, looked for only without one; ``error``: why the engine does not
            answer, empty when it does; then also ``engine`` (its version), ``os`` (its name for the
            system it runs on), ``name`` (of its machine), ``kernel``, ``architecture``, ``cpus``,
            ``memory`` (bytes), ``security`` (names of its options, ``rootless`` one), ``endpoint``
            (where the command line reaches it), and ``disk``: ``path``, ``total`` and ``free``
            bytes of where it keeps images and volumes, None where the host does not see that.
        """
        if not self.installed():
            nothing = dict.fromkeys(("client", "compose", "buildx", "compose_alone"), "")
            return {**nothing, "error": NO_CLIENT}
        found = read_info(self._look("info", "--format", "{{json .}}"))
        alone = ""
        if not found["compose"] and self._has("docker-compose"):
            version = self._look_with("docker-compose", "version", "--short")
            alone = version.stdout.strip() if version.ok else "unknown"
        if not found["error"]:
            found["endpoint"] = self.endpoint()
            root = found.pop("root")
            # An engine in a virtual machine has another kernel, and another disk.
            seen = is_local(found["endpoint"]) and found["kernel"] == self._beside("uname", "-r")
            found["disk"] = _disk(root, self._beside("df", "-P", "-k", root)) if seen else None
        return {**found, "compose_alone": alone}

    def endpoint(self) -> str:
        """The address by which the command line reaches the engine, such as ``unix:///…``."""
        # Of the context in use, which is DOCKER_HOST's where that is set.
        found = self._look("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        return found.stdout.strip() if found.ok else ""

    def is_here(self) -> bool:
        """Whether the engine, if there is one, publishes ports on this machine."""
        return is_local(self.endpoint())

    def _beside(self, *argv: str) -> str:
        """What a command prints on the engine's own host; empty where it fails."""
        seen = self._look_with(*argv)
        return seen.stdout.strip() if seen.ok else ""

    def images(self, references: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the engine has under each of ``references``, those left out that it has not.

        Returns:
            By reference ``id`` (``sha256:<digest>``), ``os`` and ``architecture`` as Docker calls
            them, and ``labels``.
        """
        if not references or not self.installed():
            return {}
        seen = self._look("image", "inspect", "--format", "{{json .}}", *references)
        return read_images(seen.stdout, references)

    def installed(self) -> bool:
        """Whether there is a docker command."""
        return self._has("docker")

    def gone(self) -> bool:
        """Whether there is no engine any more, and nothing that one ran."""
        return not self.installed()

    def reachable(self) -> None:
        """Raise HostUnreachableError when it is the host that is silent, and not the engine."""

    def answers(self) -> bool:
        """Whether there is an engine, and it lets this user in."""
        if not self.installed():
            return False
        version = self._look("version", "--format", "{{.Server.Version}}")
        return version.ok and bool(version.stdout.strip())

    def architecture(self) -> str:
        """What Docker calls the machine that the engine runs on; empty when it does not answer."""
        version = self._look("version", "--format", "{{.Server.Arch}}")
        return version.stdout.strip() if version.ok else ""

    def image_id(self, reference: str) -> str:
        """``sha256:<digest>`` of an image that the engine has, or nothing."""
        found = self._look("image", "inspect", "--format", "{{.Id}}", reference)
        return found.stdout.strip() if found.ok else ""

    def registry_digest(self, reference: str) -> str:
        """``sha256:<digest>`` of an image in its registry, for all its platforms, or nothing."""
        found = self._look(
            "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", reference
        )
        digest = found.stdout.strip()
        return digest if found.ok and _DIGEST.fullmatch(digest) else ""

    def _has(self, command: str) -> bool:
        return shutil.which(command, path=self.environ.get("PATH", os.defpath)) is not None

    def _look(self, *arguments: str) -> CommandResult:
        """As :meth:`run`; an engine that hangs, or no docker at all, is a failure like others."""
        return self._look_with("docker", *arguments)

    def _look_with(self, *argv: str) -> CommandResult:
        try:
            done = self.transport.run(argv, env=self.variables(), timeout=_SECONDS)
        except HostUnreachableError:
            raise  # nobody knows anything of its engine
        except SafEnvError as error:
            done = CommandResult(argv, self.transport.host, 1, "", error.message, 0.0)
        if not done.ok:
            self.reachable()
        return done

    @contextlib.contextmanager
    def api(self) -> Iterator[APIClient]:
        """The SDK's calls, to the very engine that the command line means.

        Raises:
            BringUpError: it does not answer, goes away meanwhile, or refuses.
        """
        from docker.errors import APIError, DockerException

        try:
            self.variables()
            yield self._client
        except (DockerException, OSError) as error:  # its connections fail with the latter
            self.reachable()
            if isinstance(error, APIError) and error.is_client_error():
                raise BringUpError(
                    f"{self.transport.host}: the Docker engine refuses: {error.explanation}",
                    hint="run the same command again; `saf-env down`, then `saf-env up` start anew",
                ) from error
            raise BringUpError(
                f"{self.transport.host}: the Docker engine does not answer: {error}",
                hint="start it (Docker Desktop, or `make engine` on Debian), then try again",
            ) from error

    @cached_property
    def _client(self) -> APIClient:
        import docker

        environ = self.variables()
        # The SDK knows nothing of contexts; Docker Desktop and OrbStack are reached by one.
        if "DOCKER_HOST" not in environ and (endpoint := self.endpoint()):
            environ["DOCKER_HOST"] = endpoint
        return docker.from_env(environment=environ, timeout=int(_SECONDS)).api


@dataclass(frozen=True)
class RemoteEngine(Engine):
    """The engine of another host. Docker's commands run here, and reach it through a socket.

    Attributes:
        transport: this machine, called by the name of the host.
        way: to the host.
        sockets: where sockets of the host are on this machine: what each path there begins with.
    """

    way: FileTransport = field(kw_only=True)
    sockets: Path = field(kw_only=True)

    def variables(self) -> dict[str, str]:
        """See :meth:`Engine.variables`. The way to the engine is opened, if it is not open.

        Raises:
            BringUpError: there is no engine, or no way to it.
            HostUnreachableError: the host cannot be reached.
        """
        self.way.forward(self._here(self._there), self._there)
        chosen = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_CERT_PATH")
        own = {k: v for k, v in super().variables().items() if not k.startswith(chosen)}
        return {**own, "DOCKER_HOST": f"unix://{self._here(self._there)}"}

    def gone(self) -> bool:
        """See :meth:`Engine.gone`: that this machine has no docker says nothing of the host."""
        return False

    def reachable(self) -> None:
        """See :meth:`Engine.reachable`."""
        self.way.run(["sh", "-c", ":"], env=_PATH, timeout=2 * _SECONDS)

    def _here(self, there: str) -> Path:
        digest = hashlib.sha256(there.encode()).hexdigest()[:8]
        return self.sockets.with_name(f"{self.sockets.name}-{digest}")

    @cached_property
    def _there(self) -> str:
        """The engine's socket on the host: the first of those engines are known by that answers."""
        host = self.way.host
        found = self.way.run(["sh", "-c", _SOCKETS], env=_PATH, timeout=_SECONDS)
        seen = [line.partition(" ")[::2] for line in found.stdout.splitlines()]
        may = [path for right, path in seen if right == "yes"]
        for path in may:
            self.way.forward(self._here(path), path)
            if _answers(self._here(path)):
                return path
        if may:
            raise BringUpError(
                f"{host}: nothing answers at {', '.join(may)}",
                hint="start the Docker engine there; its sshd has to allow forwarding of sockets "
                "(AllowStreamLocalForwarding yes, the default)",
            )
        if seen:
            raise BringUpError(
                f"{host}: permission denied while trying to connect to {seen[0][1]}",
                hint="let the user who logs in there use it: `sudo usermod -aG docker USER`",
            )
        raise BringUpError(
            f"{host}: there is no socket of a Docker engine",
            hint="install Docker Engine there, Docker Desktop or OrbStack, and start it",
        )

    def _beside(self, *argv: str) -> str:
        try:
            seen = self.way.run(argv, env=_PATH, timeout=_SECONDS)
        except HostUnreachableError:
            raise
        except SafEnvError:
            return ""
        return seen.stdout.strip() if seen.ok else ""


def _answers(path: Path) -> bool:
    """Whether an engine does at a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(5.0)
        try:
            caller.connect(str(path))
            caller.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return bool(caller.recv(1))
        except OSError:
            return False


def _disk(folder: str, df: str) -> dict[str, Any] | None:
    """The disk of ``folder``, from what ``df -P -k`` printed."""
    words = df.splitlines()[-1].split() if df else []
    if len(words) < 6 or not words[1].isdigit() or not words[3].isdigit():
        return None
    return {"path": folder, "total": int(words[1]) * 1024, "free": int(words[3]) * 1024}


def is_local(endpoint: str) -> bool:
    """Whether the address of an engine is of this machine; so is one that is not known."""
    from urllib.parse import urlsplit

    where = urlsplit(endpoint)
    return where.scheme in ("", "unix", "npipe") or where.hostname in _LOOPBACK


def unwell(result: CommandResult, what: str, node: str = "") -> BringUpError:
    """The error for a docker command that failed."""
    hint = "`docker info` shows whether the engine is well; `saf-env check` looks at it too"
    if "address already in use" in result.stderr or "port is already allocated" in result.stderr:
        hint = "`saf-env check` tells who holds that port: end it, or set another cluster.port"
    return BringUpError(f"{result.host}: {what}:\n{result.tail(8)}", hint=hint, node=node)


def read_info(info: CommandResult) -> dict[str, Any]:
    """Most of :meth:`Engine.facts`, from what ``docker info`` printed as JSON."""
    try:
        seen = json.loads(info.stdout)
    except ValueError:
        seen = {}
    client = seen.get("ClientInfo") or {}
    plugins = {p["Name"]: p.get("Version", "").lstrip("v") for p in client.get("Plugins") or ()}
    said = seen.get("ServerErrors") or ([] if info.ok else info.stderr.strip().splitlines()[-3:])
    found = {
        "client": client.get("Version", "unknown" if client else ""),  # 20.10 does not say
        "compose": plugins.get("compose", ""),
        "buildx": plugins.get("buildx", ""),
        "error": "; ".join(said) or ("" if seen.get("ServerVersion") else "it says nothing"),
    }
    if found["error"]:
        return found
    options = [dict(_pairs(option)) for option in seen.get("SecurityOptions") or ()]
    return {
        **found,
        "engine": seen["ServerVersion"],
        "os": seen["OperatingSystem"],
        "name": seen.get("Name", ""),
        "kernel": seen["KernelVersion"],
        "architecture": seen["Architecture"],
        "cpus": seen["NCPU"],
        "memory": seen["MemTotal"],
        "root": seen["DockerRootDir"],
        "security": [option["name"] for option in options if "name" in option],
    }


def _pairs(option: str) -> list[tuple[str, str]]:
    """``name=seccomp,profile=builtin`` as pairs."""
    parts = (part.partition("=") for part in option.split(","))
    return [(key, value) for key, _, value in parts]


def read_images(text: str, references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """:meth:`Engine.images`, from the lines of JSON that ``docker image inspect`` printed."""
    found = {}
    for line in filter(None, text.splitlines()):  # Docker may print an empty one for an absence
        image = json.loads(line)
        digests = [name.partition("@")[2] for name in image.get("RepoDigests") or ()]
        names = {image["Id"], *(image.get("RepoTags") or ()), *digests}
        for reference in references:
            if reference in names or reference.partition("@")[2] in names:
                found[reference] = {
                    "id": image["Id"],
                    "os": image["Os"],
                    "architecture": image["Architecture"],
                    "labels": image["Config"].get("Labels") or {},
                }
    return found

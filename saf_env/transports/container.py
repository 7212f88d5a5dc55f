"""A running container: commands are ``docker exec``, over the transport of its host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saf_env.transports.base import CommandResult, Running, Transport


class ContainerTransport:
    """Runs commands in one container.

    Args:
        inner: the host of the engine.
        docker: the environment of docker commands there.
        container: name or id of the container.
        host: what messages call it.
    """

    def __init__(
        self, inner: Transport, docker: Mapping[str, str], container: str, host: str
    ) -> None:
        self._inner = inner
        self._docker = docker
        self._container = container
        self.host = host

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        stdin: str = "",
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.Transport.run`. ``env`` adds to the container's own.

        A command that takes too long is left to itself, and only its caller goes on.
        """
        words = self._exec(argv, env, cwd)
        return self._inner.run(words, env=self._docker, timeout=timeout, stdin=stdin)

    def stream(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        cwd: str | None = None,
    ) -> CommandResult:
        """See :meth:`saf_env.transports.base.Transport.stream`."""
        return self._inner.stream(self._exec(argv, env, cwd), env=self._docker, timeout=timeout)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str = "") -> Running:
        """See :meth:`saf_env.transports.base.Transport.start`."""
        return self._inner.start(self._exec(argv, env, None), env=self._docker, stdin=stdin)

    def _exec(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> list[str]:
        # The values may stand in the command line: no variable of ours is a secret.
        variables = [word for key in sorted(env) for word in ("--env", f"{key}={env[key]}")]
        folder = ["--workdir", cwd] if cwd else []
        return ["docker", "exec", "--interactive", *variables, *folder, self._container, *argv]

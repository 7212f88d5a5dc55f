"""Runs on another host, sent there with the rest of saf-env: makes environments as everywhere.

In comes one JSON request on standard input, out goes one JSON answer; progress is on stderr.
The host needs nothing but the uv and the interpreter that the controller has put there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from saf_env.errors import SafEnvError
from saf_env.lock.model import EnvironmentLock, Interpreter
from saf_env.plan.model import EnvironmentPlan
from saf_env.provision.environments import ensure_environment
from saf_env.transports.local import LocalTransport
from saf_env.uv import Uv


def request(
    environments: list[EnvironmentPlan],
    pack: Interpreter | None,
    host: str,
    home: Path,
    uv: Path,
    variables: dict[str, str],
    rebuild: bool,
) -> dict[str, Any]:
    """What :func:`main` reads.

    Args:
        environments: which to make; their paths may be relative to the user's home.
        pack: the packed form of their interpreter where it was found on a system.
        host: what messages call the host.
        home: the folder of saf-env there.
        uv: the binary there.
        variables: settings of uv.
        rebuild: make them anew even if they are there.
    """
    return {
        "environments": [
            {
                **vars(env),
                "lock": vars(env.lock),
                "interpreter": vars(env.interpreter),
                "packages": dict(env.packages),
                "path": str(env.path),
            }
            for env in environments
        ],
        "pack": vars(pack) if pack else None,
        "host": host,
        "home": str(home),
        "uv": str(uv),
        "variables": variables,
        "rebuild": rebuild,
    }


def make(value: dict[str, Any]) -> dict[str, Any]:
    """Make what a :func:`request` asks for; a failure that was foreseen is an answer too."""
    home = Path(value["home"]).absolute()
    environ = {**os.environ, **value["variables"]}
    uv = Uv(LocalTransport(value["host"]), Path(value["uv"]).absolute(), home, environ)
    pack = Interpreter(**value["pack"]) if value["pack"] else None
    try:
        for one in value["environments"]:
            environment = EnvironmentPlan(
                **{
                    **one,
                    "lock": EnvironmentLock(**one["lock"]),
                    "interpreter": Interpreter(**one["interpreter"]),
                    "path": Path(one["path"]).absolute(),
                }
            )
            ensure_environment(environment, uv, _tell, rebuild=value["rebuild"], pack=pack)
    except SafEnvError as error:
        return {"error": error.message, "hint": error.hint}
    return {}


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Answer one request."""
    json.dump(make(json.load(sys.stdin)), sys.stdout)

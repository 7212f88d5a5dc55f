"""``saf-env toolchain pack``: an installed interpreter as an archive for other machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from saf_env.cli.context import Context
from saf_env.cli.output import Progress
from saf_env.errors import UsageError


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Pack, and print what the cluster file needs to use the archive."""
    from saf_env.platforms import this_platform
    from saf_env.provision.interpreters import examine
    from saf_env.provision.pack import pack

    here = this_platform()
    with Progress() as progress:
        given = arguments.python
        python = Path(given).absolute() if given else _locked(context, progress)
        seen = examine(python, context.uv)
        name = f"cpython-{seen['version']}-{here.name if here else 'unknown'}.tar.gz"
        target = Path(arguments.output or context.home / "archives" / name).absolute()
        if not target.name.endswith(".tar.gz"):
            raise UsageError(f"{target.name} has to end in .tar.gz, which is what it is")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {target.parent}: {error.strerror}") from error
        packed = pack(python, target, context.uv, progress.notice)
    inside = target.is_relative_to(context.home)
    file = target.relative_to(context.home) if inside else Path("archives", target.name)
    print(f"{target} is written.", "" if inside else f"Put it into the project folder, as {file}.")
    print(f"In the cluster file:\n\n[python.archives.{here.name if here else ''}]")
    print(f'file = "{file}"\nversion = "{packed.version}"\nsha256 = "{packed.sha256}"')
    return 0


def _locked(context: Context, progress: Progress) -> Path:
    """The interpreter of this machine that the lock has."""
    from saf_env.platforms import this_platform
    from saf_env.provision.interpreters import ensure_interpreter

    here = this_platform()
    for toolchain in context.lock.toolchains.values():
        interpreter = toolchain.interpreters.get(here.name if here else "")
        if interpreter and interpreter.source == "system":
            return ensure_interpreter(interpreter, context.uv, progress.notice)
    raise UsageError(
        f"the lock of cluster {context.spec.name} has no interpreter of this machine's own: what "
        "it names can be fetched elsewhere as it is",
        hint="name the interpreter to pack: `saf-env toolchain pack --python PATH`",
    )

"""The command line: where arguments come in, and where errors become exit codes.

Nothing is imported here before it is known to be needed: ``saf-env --help`` has to be quick.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers know the name; importing typing takes 5 ms
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]

BUG = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see the contract in ``docs/commands.md``."""
    try:
        _be_interrupted_by_any_end()
        from saf_env.cli.parser import make_parser

        code = _run(make_parser().parse_args(argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        print(f"\nsaf-env: {' '.join(('interrupted', *error.args))}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _output_closed()


def _be_interrupted_by_any_end() -> None:
    """A service manager's TERM and a closed terminal's HUP leave no more behind than Ctrl-C."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    from saf_env.cli.context import Context
    from saf_env.errors import SafEnvError

    try:
        module = import_module(f"saf_env.cli.commands.{arguments.module}")
        code: int = module.run(Context.of(arguments), arguments)
        return code
    except SafEnvError as error:
        _traceback(arguments)
        from saf_env.cli.output import explanation

        print(explanation(error), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        _traceback(arguments)
        print(
            f"saf-env: a bug in saf-env: {type(error).__name__}: {error}\n"
            "  what to do: run the same command with --debug and report what it prints",
            file=sys.stderr,
        )
        return BUG


def _traceback(arguments: argparse.Namespace) -> None:
    if arguments.debug:
        import traceback

        traceback.print_exc()


def _output_closed() -> int:
    """The reader of our output has gone (``saf-env plan | head``): nobody is left to tell."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

"""``saf-env completion``: the completion script of a shell, generated from the parser."""

from __future__ import annotations

import argparse

from saf_env.cli.context import Context


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from saf_env.cli.parser import make_parser

    print(shtab.complete(make_parser(), shell=arguments.shell))
    return 0

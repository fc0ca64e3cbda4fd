"""The command line: thin commands, one file each. Owns words and exit codes, does no work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code (docs/exit-codes.md)."""
    import sys

    from rrdispatch.cli import quick

    given = sys.argv[1:] if arguments is None else list(arguments)
    if (code := quick.run(given)) is not None:
        sys.exit(code)
    from rrdispatch.cli.group import run

    sys.exit(run(given))

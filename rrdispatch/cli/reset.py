"""``rrdispatch reset``: restarts are counted from 0 again."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.each import each
from rrdispatch.control import changing
from rrdispatch.control.selectors import Target


@click.command("reset")
@click.argument("selectors", nargs=-1, required=True)
def command(selectors: Sequence[str]) -> int:
    """Count the restarts of apps from 0 again.

    SELECTORS: id, name, namespace, /regex/ or all.
    """
    return each(selectors, reset)


def reset(target: Target) -> str:
    changing.reset(target.definition)
    return "reset"

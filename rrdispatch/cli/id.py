"""``rrdispatch id``: the ids of apps."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.control import selectors as chosen


@click.command("id")
@click.argument("selectors", nargs=-1, required=True)
def command(selectors: Sequence[str]) -> None:
    """Print the ids of apps, one per line.

    SELECTORS: name, namespace, /regex/ or all.
    """
    for target in chosen.resolve(selectors):
        if target.definition.id >= 0:
            click.echo(target.definition.id)

"""``rrdispatch flush``: empties the log files of apps."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.logs import named
from rrdispatch.cli.table import shown_bytes


@click.command("flush")
@click.argument("selectors", nargs=-1)
def command(selectors: Sequence[str]) -> None:
    """Empty the log files of apps, rotated ones too; of all apps if none is named."""
    for app in named(selectors):
        click.echo(f"{app.plan.name}: {shown_bytes(app.flush())} of logs are gone")

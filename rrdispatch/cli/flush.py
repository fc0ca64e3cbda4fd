"""``rrdispatch flush``: empties the log files of apps."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.errors import tell
from rrdispatch.cli.logs import named
from rrdispatch.cli.table import shown_bytes
from rrdispatch.control.logplaces import AppLogs
from rrdispatch.errors import Error


@click.command("flush")
@click.argument("selectors", nargs=-1)
def command(selectors: Sequence[str]) -> int:
    """Empty the log files of apps, rotated ones too; of all apps if none is named."""
    apps = named(selectors)
    for app in apps:
        app.check_flush()
    return max([_flush(app) for app in apps], default=0)


def _flush(app: AppLogs) -> int:
    try:
        click.echo(f"{app.plan.name}: {shown_bytes(app.flush())} of logs are gone")
    except Error as error:
        tell(error)
        return error.exit_code
    return 0

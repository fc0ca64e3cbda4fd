"""``rrdispatch list``: all apps, running or stopped."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli import listing


@click.command("list")
@click.argument("selectors", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
@click.option("-w", "--workers", is_flag=True, help="A line for each worker, too.")
def command(selectors: Sequence[str], as_json: bool, workers: bool) -> None:
    """Show the apps: id, state, workers, CPU, memory, connections."""
    listing.run(selectors, as_json, workers)

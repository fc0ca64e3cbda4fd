"""``rrdispatch pid``: process ids, one per line."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.control import selectors as chosen
from rrdispatch.control.ask import ask_all
from rrdispatch.errors import Error


@click.command("pid")
@click.argument("selectors", nargs=-1)
@click.option("--primary", is_flag=True, help="Of the primaries, instead of the workers.")
def command(selectors: Sequence[str], primary: bool) -> None:
    """Print the process ids of workers, one per line; of all apps if none is named.

    SELECTORS: id, name, NAME:SLOT, namespace, /regex/ or all.
    """
    targets = chosen.resolve(selectors, slots=True) if selectors else None
    if targets is None:
        targets = [chosen.Target(app) for app in chosen.known()]
    told = ask_all({target.name: None for target in targets}, "stats")
    for target in targets:
        stats = told[target.name]
        if isinstance(stats, Error):
            continue  # it does not run: it has none
        if primary:
            click.echo(stats["primary_pid"])
            continue
        for worker in stats["workers"]:
            if target.slot in (None, worker["slot"]):
                click.echo(worker["pid"])

"""``rrdispatch metrics``: figures of apps for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.control import metrics
from rrdispatch.control import selectors as chosen
from rrdispatch.control.ask import ask_all


@click.command("metrics")
@click.argument("selectors", nargs=-1)
def command(selectors: Sequence[str]) -> None:
    """Print figures in Prometheus' text format; of all apps that should run if none is named.

    For a textfile collector, say; to be scraped, an app has --status-bind.
    """
    metrics.require()
    if selectors:
        names = [target.name for target in chosen.resolve(selectors)]
    else:
        names = [app.name for app in chosen.known() if app.wanted == "run"]
    told = ask_all(names, "stats", 5.0)
    apps = {name: told[name] if isinstance(told[name], dict) else None for name in names}
    click.echo(metrics.text(apps), nl=False)

"""``rrdispatch monit``: apps, workers and logs on the whole screen, live."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rrdispatch.errors import ConfigError, MissingExtraError
from rrdispatch.options import Wrong, duration

LEAST = 0.1


@click.command("monit")
@click.argument("selectors", nargs=-1)
@click.option("--plain", is_flag=True, help="Print once, for scripts.")
@click.option("--interval", metavar="TIME", default="1s", help="Between two looks.  [default: 1s]")
def command(selectors: Sequence[str], plain: bool, interval: str) -> None:
    """Watch apps: CPU, memory, connections, split and logs; reload, scale and stop by a key.

    SELECTORS: id, name, namespace, /regex/ or all.
    """
    every = _interval(interval)
    if plain:
        show(selectors)
        return
    from rrdispatch.control import selectors as chosen

    if selectors:
        chosen.resolve(selectors)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("monit needs a terminal", hint="rrdispatch monit --plain")
    _run(selectors, every)


def show(selectors: Sequence[str]) -> None:
    """Once, as lines."""
    from rrdispatch.cli.listing import collect
    from rrdispatch.cli.table import width
    from rrdispatch.monit import plain

    for line in plain.lines([plain.seen_of(row) for row in collect(selectors)], width()):
        click.echo(line)


def _interval(text: str) -> float:
    try:
        found = duration(text)
    except Wrong as wrong:
        raise ConfigError(f"--interval: {wrong}", hint=wrong.hint) from None
    if found < LEAST:
        raise ConfigError(f"--interval: {text} is too short", hint=f"at least {LEAST:g}s")
    return found


def _run(selectors: Sequence[str], every: float) -> None:
    try:
        from rrdispatch.monit.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        install = f'{sys.executable} -m pip install "rrdispatch[monit]"'
        raise MissingExtraError(
            f"monit needs textual, which {sys.executable} does not have",
            hint=f"{install}; without it: rrdispatch monit --plain",
        ) from None
    from rrdispatch.monit.live import Live

    run(Live(selectors, every), every)

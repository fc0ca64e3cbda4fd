"""``rrdispatch signal``: any signal to workers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.each import each
from rrdispatch.control import changing
from rrdispatch.control.selectors import Target


@click.command("signal")
@click.argument("name", metavar="SIGNAL")
@click.argument("selectors", nargs=-1, required=True)
def command(name: str, selectors: Sequence[str]) -> int:
    """Send SIGNAL, for example USR1, to the workers of apps.

    SELECTORS: id, name, NAME:SLOT, namespace, /regex/ or all.
    """
    return each(selectors, lambda target: send(target, name), slots=True)


def send(target: Target, name: str) -> str:
    with changing.running(target.definition) as line:
        pids = line.call("signal", signal=name, slot=target.slot)
    return f"sent to {', '.join(map(str, pids))}"

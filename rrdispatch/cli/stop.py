"""``rrdispatch stop``: drains apps; they stay in the list."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.each import each
from rrdispatch.control import ending
from rrdispatch.control.definitions import STOP
from rrdispatch.control.selectors import Target


@click.command("stop")
@click.argument("selectors", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Cut off what is under way.")
def command(selectors: Sequence[str], now: bool) -> int:
    """Stop apps: their workers finish what they have. They stay in the list.

    SELECTORS: id, name, namespace, /regex/ or all.
    """
    return each(selectors, lambda target: stop(target, now), at_once="the stop goes on")


def stop(target: Target, now: bool, wanted: str = STOP) -> str:
    ran = ending.stop(target.definition, now=now, wanted=wanted)
    return "stopped" if ran else "was stopped already"

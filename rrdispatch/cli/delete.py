"""``rrdispatch delete``: stops apps and forgets them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.each import each
from rrdispatch.control import ending
from rrdispatch.control.selectors import Target


@click.command("delete")
@click.argument("selectors", nargs=-1, required=True)
def command(selectors: Sequence[str]) -> int:
    """Stop apps and take them out of the list.

    SELECTORS: id, name, namespace, /regex/ or all.
    """
    return each(selectors, delete, at_once="it stops, and stays in the list")


def delete(target: Target) -> str:
    ending.delete(target.definition)
    return "deleted"

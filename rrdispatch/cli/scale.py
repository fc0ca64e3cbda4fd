"""``rrdispatch scale``: more workers, or fewer."""

from __future__ import annotations

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.progress import Progress
from rrdispatch.control import changing
from rrdispatch.control.selectors import Target


@click.command("scale", context_settings={"ignore_unknown_options": True})
@click.argument("selector")
@click.argument("number", metavar="N|+N|-N")
def command(selector: str, number: str) -> int:
    """Have N workers, N more or N fewer. Those that go finish what they have."""
    return each([selector], lambda target: scale(target, number))


def scale(target: Target, number: str) -> str:
    name = target.name
    with Progress(name, f"the workers come and go: rrdispatch show {name}") as progress:
        wanted = changing.scale(target.definition, number, progress.event)
    return "1 worker" if wanted == 1 else f"{wanted} workers"

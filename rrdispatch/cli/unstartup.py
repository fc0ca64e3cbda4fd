"""``rrdispatch unstartup``: takes away what ``startup`` made."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.errors import say
from rrdispatch.cli.startup import FOLDER, WRITE, place
from rrdispatch.control import units
from rrdispatch.errors import ConfigError
from rrdispatch.options import nearest


@click.command("unstartup")
@click.argument("names", nargs=-1)
@WRITE
@FOLDER
def command(names: Sequence[str], write: bool, folder: str | None) -> None:
    """Show the units that `rrdispatch startup` made, of all apps or of NAMES; --write deletes them.

    Only files that it made; apps that run are left alone.
    """
    where = place(folder)
    there = units.ours(where)
    for name in names:
        if name not in there:
            units.check_ours(where.path(name))
            near = nearest(name, there)
            hint = f"did you mean {near}?" if near else f"none is in {where.folder}"
            raise ConfigError(f"there is no unit of {name}", hint=hint)
    found = list(names) or there
    if not found:
        click.echo(f"there are no units of ours in {where.folder}")
        return
    for name in found:
        for path in units.remove(where, name) if write else [where.path(name)]:
            click.echo(f"{name}: {path}{' is gone' if write else ''}")
    say(_next(where, found, write))


def _next(where: units.Manager, names: Sequence[str], written: bool) -> str:
    every = " ".join(units.unit_name(name) for name in names)
    if written:
        lines = [f"{where.systemctl} daemon-reload", f"{where.systemctl} stop {every}"]
    else:
        lines = [f"{where.systemctl} disable --now {every}"]
        lines += [f"rrdispatch unstartup {' '.join(names)} --write"]
    return "next:\n" + "\n".join(f"  {line}" for line in lines)

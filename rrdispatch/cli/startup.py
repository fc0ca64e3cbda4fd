"""``rrdispatch startup``: systemd units, so that apps come with the machine."""

from __future__ import annotations

import dataclasses
import getpass
from collections.abc import Sequence
from pathlib import Path

import click

from rrdispatch.cli.errors import say
from rrdispatch.control import selectors as chosen
from rrdispatch.control import units
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.errors import ConfigError

FOLDER = click.option(
    "--folder", metavar="PATH", help="Where units are; else systemd's folder for this user."
)
WRITE = click.option("--write", is_flag=True, help="Do it; else it is only shown.")


@click.command("startup")
@click.argument("selectors", nargs=-1)
@WRITE
@FOLDER
def command(selectors: Sequence[str], write: bool, folder: str | None) -> None:
    """Print a systemd unit for each app, or for all that should run; --write puts them in place.

    Root's are the machine's, another user's are of the user's own systemd.
    """
    where, apps = place(folder), _apps(selectors)
    for app in apps:
        text = units.text(app, where)
        if write:
            click.echo(f"{app.name}: {units.write(where, app.name, text)}")
        else:
            click.echo(f"# {where.path(app.name)}\n{text}")
    say(_next(where, [app.name for app in apps], write))


def place(folder: str | None) -> units.Manager:
    found = units.manager()
    return found if folder is None else dataclasses.replace(found, folder=Path(folder).absolute())


def _apps(selectors: Sequence[str]) -> list[Definition]:
    if selectors:
        found = [target.definition for target in chosen.resolve(selectors)]
    else:
        found = [app for app in chosen.known() if app.wanted == RUN and app.id >= 0]
    if not found:
        raise ConfigError("no app should run", hint="rrdispatch start TARGET, then this again")
    for app in found:
        if app.id < 0 or not app.settings:
            raise ConfigError(
                f"{app.name} was not started by rrdispatch start: nobody knows how it is started",
                hint="rrdispatch start TARGET",
            )
    return found


def _next(where: units.Manager, names: Sequence[str], written: bool) -> str:
    every = " ".join(units.unit_name(name) for name in names)
    lines = [] if written else [f"rrdispatch startup {' '.join(names)} --write"]
    lines += [f"{where.systemctl} daemon-reload"]
    lines += [f"rrdispatch stop {' '.join(names)}    # systemd starts them anew, as its own"]
    lines += [f"{where.systemctl} enable --now {every}"]
    if where.user and not units.lingers(getpass.getuser()):
        lines += ["loginctl enable-linger    # else they end when you log out"]
    return "next:\n" + "\n".join(f"  {line}" for line in lines)

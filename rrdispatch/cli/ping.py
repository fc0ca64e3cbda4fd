"""``rrdispatch ping``: do the primaries answer? The exit code says it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.errors import tell
from rrdispatch.control import selectors as chosen
from rrdispatch.control.ask import ask_all
from rrdispatch.errors import ControlError, Error

READY = ("serving", "reloading")


@click.command("ping")
@click.argument("selectors", nargs=-1)
@click.option("--ready", is_flag=True, help="A worker must serve, too.")
@click.option("--timeout", default=5.0, metavar="SECONDS", help="To answer in.  [default: 5]")
def command(selectors: Sequence[str], ready: bool, timeout: float) -> int:
    """Ask whether apps answer; of all that should run if none is named. Exit code 0: all do."""
    if selectors:
        names = [target.name for target in chosen.resolve(selectors)]
    else:
        names = [app.name for app in chosen.known() if app.wanted == "run"]
    if not names:
        raise ControlError("no app runs", hint="rrdispatch start TARGET")
    told = ask_all(names, "stats", timeout)
    return max(_say(name, told[name], ready) for name in names)


def _say(name: str, told: object, ready: bool) -> int:
    if isinstance(told, dict) and not (ready and not _serves(told)):
        click.echo(f"{name}: {'ready' if ready else 'pong'}")
        return 0
    if isinstance(told, dict):
        text = f"{name} is not ready: {told['state']}, {told['serving']} of {told['wanted']} serve"
        told = ControlError(text)
    assert isinstance(told, Error)
    tell(told)
    return ControlError.exit_code


def _serves(stats: dict[str, object]) -> bool:
    return bool(stats["serving"]) and stats["state"] in READY

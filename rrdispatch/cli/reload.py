"""``rrdispatch reload``: new code in every worker, nobody is lost; or the old code serves on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.progress import Progress
from rrdispatch.control import changing
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ConfigError, ReloadError
from rrdispatch.options import Wrong, read


@click.command("reload")
@click.argument("selectors", nargs=-1, required=True)
@click.option("--batch", metavar="N", help="Workers replaced at a time.")
@click.option("--probation", metavar="TIME", help="How long the new workers must live.")
@click.option("--park/--no-park", default=None, help="Keep the old workers until then.")
@click.option("--stop-first", is_flag=True, default=None, help="An old one goes before a new one.")
@click.option("--wait/--no-wait", default=True, help="Until it has succeeded or was rolled back.")
def command(selectors: Sequence[str], wait: bool, **typed: Any) -> int:
    """Replace all workers by new ones, in turn. If the new code fails, the old one serves on.

    SELECTORS: id, name, namespace, /regex/ or all.
    """
    options = _options(typed)
    return each(selectors, lambda target: reload(target, options, wait))


def reload(target: Target, options: dict[str, Any], wait: bool) -> str:
    app = target.definition
    try:
        with Progress(app.name, f"the reload goes on: rrdispatch show {app.name}") as progress:
            done = changing.reload(app, options, progress.event, wait=wait)
    except ReloadError as error:
        error.hint = error.hint or f"mend it, then: rrdispatch reload {app.name}"
        raise
    if done is None:
        return "reload begins"
    return f"reloaded in {done['seconds']:.1f} s, generation {done['generation']}"


def _options(typed: dict[str, Any]) -> dict[str, Any]:
    """Only what was said, read as settings are read."""
    from rrdispatch.settings import OPTIONS, flag

    found = {}
    for key, value in typed.items():
        if value is not None:
            try:
                found[key] = read(OPTIONS[key], value)
            except Wrong as wrong:
                raise ConfigError(f"{flag(key)}: {wrong}", hint=wrong.hint) from None
    return found

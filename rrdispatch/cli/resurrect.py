"""``rrdispatch resurrect``: starts what should run and does not, after a crash of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from rrdispatch.cli.each import one
from rrdispatch.cli.errors import say, warn
from rrdispatch.control import definitions, rows, saved, selectors
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ControlError


@click.command("resurrect")
@click.option("--saved", "all_saved", is_flag=True, help="What `save` kept, stopped or not since.")
def command(all_saved: bool) -> int:
    """Start all apps that should run and do not; not those that somebody stopped.

    If the list is empty: those that should have run at the last `save`.
    """
    known = selectors.known()
    listed = [app for app in known if app.id >= 0]
    for app in listed:
        if app.spoilt:
            warn(app.spoilt)
    missing = gone([app for app in listed if app.wanted == RUN])
    lost = _lost(listed)
    spoilt = {app.name: app.error["message"] for app in known if app.id < 0 and app.error}
    back = [app for app in lost if all_saved or not listed or app.name in spoilt]
    for app in back:
        if app.name in spoilt:
            warn(f"{spoilt[app.name]}: {app.name} is started as it was saved")
    codes = [_each(missing, start), _each(back, start_saved)]
    if left := ", ".join(app.name for app in lost if app not in back):
        say(f"stopped or deleted since the last save: {left}\nhint: rrdispatch resurrect --saved")
    if not missing and not back:
        click.echo("nothing to start")
    return max(codes)


def _each(apps: Sequence[Definition], action: Callable[[Target], str]) -> int:
    return max([one(Target(app), action) for app in apps], default=0)


def gone(apps: Sequence[Definition]) -> list[Definition]:
    """Those that have no primary."""
    told = zip(apps, rows.collect(apps, rates=False), strict=True)
    return [app for app, row in told if row["status"] in rows.GONE and not row["primary_pid"]]


def _lost(listed: Sequence[Definition]) -> list[Definition]:
    """Of the last ``save``: what should have run then, and is now stopped, deleted or spoilt."""
    try:
        kept = saved.load()
    except ControlError as error:
        warn(error.message, "rrdispatch save, when all is as it should be")
        return []
    if kept is None:
        return []
    if kept.spoilt:
        warn(kept.spoilt)
    wanted = {app.name for app in listed if app.wanted == RUN}
    running = {app.name for app in listed} - {app.name for app in gone(listed)}
    left = wanted | running
    return [app for app in kept.apps if app.wanted == RUN and app.name not in left]


def start(target: Target) -> str:
    app = definitions.load(target.name)  # the starts before this one took their time
    if app is None:
        return "was deleted meanwhile"
    if app.wanted != RUN:
        return "was stopped meanwhile"
    return _start(app)


def start_saved(target: Target) -> str:
    """As it is in the list by now, else as it was saved."""
    try:
        app = definitions.load(target.name) or target.definition
    except ControlError:
        app = target.definition
    return _start(app)


def _start(app: Definition) -> str:
    from rrdispatch.cli.start import longest
    from rrdispatch.cli.start import start as start_it

    start_it(app, longest(app.settings))
    return "started"

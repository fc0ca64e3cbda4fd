"""``rrdispatch restart``: stops and starts; what listens stays, clients wait in its backlog."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.progress import Progress
from rrdispatch.control import changing, ending
from rrdispatch.control.ask import ask
from rrdispatch.control.definitions import Definition
from rrdispatch.control.selectors import Target
from rrdispatch.control.statedir import NotRunningError
from rrdispatch.errors import ControlError, ReloadError

AT_ONCE = {"stop_first": True, "park": False, "probation": 0.0}


@click.command("restart")
@click.argument("selectors", nargs=-1, required=True)
@click.option("--update-env", is_flag=True, help="With the environment of this shell.")
def command(selectors: Sequence[str], update_env: bool) -> int:
    """Stop each worker, then start another in its place; a stopped app is started.

    The primary and its listening sockets stay, unless settings or environment have changed.
    SELECTORS: id, name, NAME:SLOT, namespace, /regex/ or all.
    """
    return each(selectors, lambda target: restart(target, update_env), slots=True)


def restart(target: Target, update_env: bool) -> str:
    app = target.definition
    goes_on = f"the restart goes on: rrdispatch show {app.name}"
    if target.slot is not None:
        with Progress(app.name, goes_on) as progress:
            pid = changing.recycle(app, target.slot, progress.event)
        return f"restarted, pid {pid}"
    if app.id >= 0 and (update_env or changes(app)):
        return _anew(app, update_env)
    try:
        with Progress(app.name, goes_on) as progress:
            done = changing.reload(app, AT_ONCE, progress.event)
    except NotRunningError:
        if app.id < 0:
            raise
        return _anew(app, update_env)
    except ReloadError as error:
        who = f"rrdispatch list {app.name}: who serves now; mend the app and restart again"
        error.hint = error.hint or who
        raise
    assert done is not None
    return f"restarted in {done['seconds']:.1f} s"


def _anew(app: Definition, update_env: bool) -> str:
    """With a primary of its own: what listens is closed and opened again."""
    from rrdispatch.cli.start import again, longest, start

    definition = again(app, {}, update_env)
    _check_service(app)
    ran = ending.stop(app)
    start(definition, longest(definition.settings))
    return "restarted" if ran else "started"


def _check_service(app: Definition) -> None:
    """A primary that systemd started would be followed by one that it knows nothing of."""
    try:
        unit = ask(app.name, "stats").get("service_manager")
    except ControlError:
        return  # it does not run, or cannot say
    if unit:
        raise ControlError(
            f"{app.name} is a service of systemd, which has to start it with what has changed",
            hint=f"systemctl restart rrdispatch-{app.name}.service",
        )


def changes(app: Definition) -> list[str]:
    """Settings that a start would find otherwise than they are, in a file for example."""
    from rrdispatch.cli.start import resolved

    found = resolved(app).values()
    return [key for key, value in found.items() if app.settings.get(key) != value]

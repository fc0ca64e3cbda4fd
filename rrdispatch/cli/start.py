"""``rrdispatch start``: serves in the background; Done is said when every worker is ready."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from rrdispatch.apps import App
from rrdispatch.checks import check_name
from rrdispatch.cli import together
from rrdispatch.cli.asked import Asked, asked, only_one
from rrdispatch.cli.each import one
from rrdispatch.cli.errors import say, warn
from rrdispatch.cli.options import SectionedCommand, said, setting_options
from rrdispatch.cli.pm2 import pm2_options, translated
from rrdispatch.cli.progress import Progress
from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ConfigError, ControlError, StartError
from rrdispatch.options import Wrong
from rrdispatch.settings import Settings

ANSWER = 3.0
_EPILOG = "TARGET and options are those of `rrdispatch run`; NAME is that of an app in the list."


@click.command("start", cls=SectionedCommand, epilog=_EPILOG)
@click.argument("target", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--config", metavar="FILE", help="Settings file, instead of looking for one here.")
@click.option("--only", metavar="NAME,...", help="Which apps of a file of several.")
@click.option("--namespace", metavar="TEXT", help="A group of apps, to be named together.")
@click.option("--update-env", is_flag=True, help="NAME gets the environment of this shell.")
@click.option(
    "--foreground", "--no-daemon", is_flag=True, help="Be the service, until it ends (systemd)."
)
@click.option("-f", "--force", is_flag=True, help="Another one, if one of that name runs.")
@setting_options
@pm2_options
def command(**typed: Any) -> int:
    """Serve TARGET in the background, or the apps of a FILE, or start NAME again.

    FILE is a rrdispatch.toml, or pm2's ecosystem.json or .yaml; without anything the one of this
    folder. NAME was stopped.
    """
    how = How(**{item.name: typed.pop(item.name) for item in dataclasses.fields(How)})
    plans = _plans(said(translated(typed)), how)
    if how.force:
        plans = [(free(definition), within) for definition, within in plans]
    if how.foreground:
        from rrdispatch.cli.foreground import become

        become(plans[0][0])
    if len(plans) == 1:
        definition, within = plans[0]
        click.echo(f"{definition.name}: {start(definition, within)}")
        return 0
    return max([_one_of(definition, within) for definition, within in plans], default=0)


@dataclass(frozen=True)
class How:
    """The options that are no settings."""

    config: str | None
    only: str | None
    namespace: str | None
    update_env: bool
    foreground: bool
    force: bool


def _plans(given: Mapping[str, Any], how: How) -> list[tuple[Definition, float]]:
    """What is to be started, and how long that may take."""
    known = None if how.only is not None else _known(given)
    if known is not None:
        if known.spoilt:
            warn(known.spoilt)
        known = again(known, given, how.update_env)
        return [(known, longest(known.settings))]
    found = asked(given, how.config, how.only, os.environ)
    if how.foreground:
        found = only_one(found, "rrdispatch start --foreground")
    return planned(found, how.namespace)


def _one_of(definition: Definition, within: float) -> int:
    """One that fails stops no other."""
    return one(Target(definition), lambda _target: start(definition, within))


def planned(found: Asked, namespace: str | None) -> list[tuple[Definition, float]]:
    """All are checked before any is started."""
    chosen = (None,) if found.chosen is None else found.chosen
    if not chosen:
        raise ConfigError(f"{found.config}: no app of it starts by itself", hint="--only NAME")
    with found.there():
        made = [new(found, app, namespace) for app in chosen]
        together.check([settings for _, settings in made], found.folder or _cwd())
    return [(definition, longest(settings.values())) for definition, settings in made]


def start(definition: Definition, within: float) -> str:
    """Returns when it serves, with what is to be said."""
    from rrdispatch.control import detach

    detach.check_free(definition.name)
    try:
        with Progress(definition.name, "the start is taken back") as progress:
            found = detach.start(definition, within, progress.event)
    except StartError as error:
        if error.output.strip():
            say(error.output.rstrip("\n"))
        raise
    where = ", ".join(listener["address"] for listener in found["listeners"])
    where = f" on {where}" if where else ""
    return f"started, id {found['id']}: {_workers(found)}{where}"


def _workers(found: Mapping[str, Any]) -> str:
    return "1 worker" if found["serving"] == 1 else f"{found['serving']} workers"


def _known(given: Mapping[str, Any]) -> Definition | None:
    """The app that TARGET names, if it is the name or the id of one."""
    from rrdispatch.control import definitions

    target = str(given.get("target") or "")
    if not target or ":" in target or given.get("arguments"):
        return None
    for definition in definitions.all_of():
        if definition.name == target and definition.id < 0 and definition.error:
            hint = f"rrdispatch resurrect, if it was saved; rrdispatch delete {target} forgets it"
            raise ControlError(definition.error["message"], hint=hint)
        if target in (definition.name, str(definition.id)) and definition.id >= 0:
            return definition
    return None


def new(found: Asked, app: App | None, namespace: str | None) -> tuple[Definition, Settings]:
    """Of what was typed here and now; refused as ``run`` refuses it."""
    from rrdispatch.cli.run import gather

    settings = followed(gather(found.given, os.environ, found.config, *found.which(app)))
    statedir.permit(settings.name or "app")
    file = found.file
    own = app.namespace if app is not None else file and file.namespace
    return (
        Definition(
            name=settings.name or "app",
            namespace=_namespace(namespace) or own or "",
            typed={key: list(v) if isinstance(v, tuple) else v for key, v in found.given.items()},
            config=None if file is None else os.path.abspath(file.path),
            section="" if app is None else app.name,
            profile=found.profile,
            cwd=found.folder or _cwd(),
            environ=dict(os.environ),
        ),
        settings,
    )


def free(definition: Definition) -> Definition:
    """Under another name, if one of that name runs."""
    from rrdispatch.control.ask import ask_all
    from rrdispatch.control.statedir import NotRunningError

    name, number = definition.name, 1
    while not isinstance(ask_all([name], "stats", ANSWER)[name], NotRunningError):
        number += 1
        name = f"{definition.name[:58]}-{number}"
    if number == 1:
        return definition
    return dataclasses.replace(definition, name=name, id=-1)


def again(known: Definition, given: Mapping[str, Any], update_env: bool) -> Definition:
    """As it was; with this shell's environment if that is asked for."""
    more = sorted(set(given) - {"target"})
    if more:
        raise ConfigError(
            f"{known.name} is started as it was: --{more[0].replace('_', '-')} cannot be said here",
            hint=f"rrdispatch delete {known.name}, and start its TARGET anew",
        )
    environ = dict(os.environ) if update_env else known.environ
    return dataclasses.replace(known, environ=environ)


def followed(settings: Settings) -> Settings:
    """With heirs, unless it was said, and with a file for what has none."""
    from rrdispatch.control.logplaces import with_default

    if "heir" not in settings.sources:
        settings = dataclasses.replace(settings, heir=True)
    return with_default(settings)


def resolved(definition: Definition) -> Settings:
    """What a start of it would find now: in its folder, its file, its environment."""
    from rrdispatch.cli.run import gather

    before = os.getcwd()
    try:
        os.chdir(definition.cwd)
        typed = {**definition.typed, "name": definition.name}
        which = (definition.section, definition.profile)
        return followed(gather(typed, definition.environ, definition.config, *which))
    except OSError as error:
        raise ConfigError(
            f"{definition.cwd}: {error.strerror}", hint="its folder is gone"
        ) from None
    finally:
        os.chdir(before)


def longest(settings: Mapping[str, Any]) -> float:
    """A start that fails: two workers one after the other, then the end of what is left."""
    named = ("ready_timeout", "ready_timeout", "ready_timeout", "drain_timeout", "shutdown_delay")
    return float(sum(float(settings.get(key, 60.0)) for key in named))


def _namespace(text: str | None) -> str:
    try:
        return "" if text is None else check_name(text)
    except Wrong as wrong:
        raise ConfigError(f"--namespace: {wrong}", hint=wrong.hint) from None


def _cwd() -> str:
    """As it was typed: a symlink in it is followed anew by each start."""
    cwd, typed = os.getcwd(), os.environ.get("PWD", "")
    same = os.path.isabs(typed) and os.path.realpath(typed) == os.path.realpath(cwd)
    return typed if same else cwd

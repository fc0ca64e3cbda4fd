"""``rrdispatch start``: serves in the background; Done is said when every worker is ready."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rrdispatch.checks import check_name
from rrdispatch.cli.errors import say
from rrdispatch.cli.options import SectionedCommand, said, setting_options
from rrdispatch.cli.pm2 import pm2_options, translated
from rrdispatch.cli.progress import Progress
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError, StartError
from rrdispatch.options import Wrong
from rrdispatch.settings import Settings

_EPILOG = "TARGET and options are those of `rrdispatch run`; NAME is that of an app in the list."


@click.command("start", cls=SectionedCommand, epilog=_EPILOG)
@click.argument("target", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--config", metavar="FILE", help="Settings file, instead of looking for one here.")
@click.option("--namespace", metavar="TEXT", help="A group of apps, to be named together.")
@click.option("--update-env", is_flag=True, help="NAME gets the environment of this shell.")
@click.option(
    "--foreground", "--no-daemon", is_flag=True, help="Be the service, until it ends (systemd)."
)
@setting_options
@pm2_options
def command(
    config: str | None, namespace: str | None, update_env: bool, foreground: bool, **typed: Any
) -> None:
    """Serve TARGET in the background, or start NAME again, which was stopped."""
    given = said(translated(typed))
    known = _known(given)
    if known is None:
        definition, settings = new(given, config, namespace)
        within = longest(settings.values())
    else:
        definition = again(known, given, update_env)
        within = longest(definition.settings)
    if foreground:
        from rrdispatch.cli.foreground import become

        become(definition)
    start(definition, within)


def start(definition: Definition, within: float, *, quiet: bool = False) -> None:
    """Returns when it serves; ``quiet``: the caller says so."""
    from rrdispatch.control import detach

    try:
        with Progress(definition.name, "the start is taken back") as progress:
            found = detach.start(definition, within, progress.event)
    except StartError as error:
        if error.output.strip():
            say(error.output.rstrip("\n"))
        raise
    if quiet:
        return
    where = ", ".join(listener["address"] for listener in found["listeners"])
    where = f" on {where}" if where else ""
    click.echo(f"{definition.name}: started, id {found['id']}: {_workers(found)}{where}")


def _workers(found: Mapping[str, Any]) -> str:
    return "1 worker" if found["serving"] == 1 else f"{found['serving']} workers"


def _known(given: Mapping[str, Any]) -> Definition | None:
    """The app that TARGET names, if it is the name or the id of one."""
    from rrdispatch.control import definitions

    target = str(given.get("target") or "")
    if not target or ":" in target or given.get("arguments"):
        return None
    for definition in definitions.all_of():
        if target in (definition.name, str(definition.id)) and definition.id >= 0:
            return definition
    return None


def new(
    given: Mapping[str, Any], config: str | None, namespace: str | None
) -> tuple[Definition, Settings]:
    """Of what was typed here and now; refused as ``run`` refuses it."""
    from rrdispatch import files
    from rrdispatch.cli.run import gather

    settings = followed(gather(given, os.environ, config))
    found = files.find(Path.cwd()) if config is None else None
    path = str(found.path) if found is not None else config
    return (
        Definition(
            name=settings.name or "app",
            namespace=_namespace(namespace),
            typed={key: list(v) if isinstance(v, tuple) else v for key, v in given.items()},
            config=None if path is None else os.path.abspath(path),
            cwd=_cwd(),
            environ=dict(os.environ),
        ),
        settings,
    )


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
        return followed(gather(typed, definition.environ, definition.config))
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

"""``rrdispatch config check``: what a settings file would start, or what is wrong in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from rrdispatch import cpus
from rrdispatch.apps import App, AppsFile
from rrdispatch.cli import together
from rrdispatch.cli.asked import Asked, asked
from rrdispatch.cli.errors import tell
from rrdispatch.errors import ConfigError, Error
from rrdispatch.files import ConfigFile
from rrdispatch.settings import Settings, from_sources


@click.group("config")
def command() -> None:
    """Look at settings files."""


@command.command("check")
@click.argument("file", required=False)
@click.option("--only", metavar="NAME,...", help="Some apps of a file of several.")
@click.option("--env", "profile", metavar="NAME", help="pm2's env_NAME goes on top of env.")
def check(file: str | None, only: str | None, profile: str | None) -> int:
    """Say which apps FILE would start, and how; or each thing that is wrong, with its line.

    Without FILE: what is in this folder. Nothing is started or changed.
    """
    given = {} if file is None else {"target": file}
    found = asked({**given, **({"env": (profile,)} if profile else {})}, None, only, {})
    if found.file is None or (file is not None and found.folder is None):
        what = f"{file} is no settings file" if file else "there is no settings file in this folder"
        raise ConfigError(what, hint="rrdispatch init writes one")
    chosen = found.chosen if found.chosen is not None else (None,)
    problems = [each for app in chosen for each in wrong(found.file, app)]
    if problems:
        return _told(problems)
    with found.there():
        results = [_settings(found, app) for app in chosen]
        refused = [result for result in results if isinstance(result, Error)]
        if refused:
            return _told(refused)
        good = [result for result in results if isinstance(result, Settings)]
        together.check(good, os.getcwd())
        for settings in good:
            click.echo(how(settings))
    return 0


def _told(problems: list[Error]) -> int:
    """Each once: what is shared by several apps is wrong in all of them."""
    seen: set[str] = set()
    for problem in problems:
        if problem.message not in seen:
            tell(problem)
        seen.add(problem.message)
    return max(problem.exit_code for problem in problems)


def wrong(file: AppsFile, app: App | None) -> Iterator[Error]:
    """Every value that is refused by itself."""
    config = file.config(app.name if app is not None else "")
    for key, value in config.table.items():
        alone = ConfigFile(config.path, {key: value}, config.lines, config.places)
        try:
            from_sources({}, {}, alone)
        except ConfigError as error:
            yield error


def _settings(found: Asked, app: App | None) -> Settings | Error:
    """What a start would find."""
    from rrdispatch.cli.run import gather

    try:
        settings = gather(found.given, os.environ, found.config, *found.which(app))
    except Error as error:
        if app is not None and app.name not in error.message:
            error.message = f"{app.name}: {error.message}"
        return error
    try:
        together.find(settings, os.getcwd())
    except Error as error:
        return error
    return settings


def how(settings: Settings) -> str:
    """``web: shop.main:app, 2 workers, on 127.0.0.1:8000``, and why so many."""
    count = cpus.count(settings.instances, cpus.detect(), settings.sources.get("instances", ""))
    workers = "1 worker" if count.workers == 1 else f"{count.workers} workers"
    if not settings.listen:
        where = "without a listener"
    elif settings.is_preloaded:
        where = "where it listens by itself"
    else:
        where = f"on {', '.join(settings.bind)}"
    target = " ".join([settings.target, *settings.arguments])
    return f"{settings.name}: {target}, {workers}, {where}\n    {workers}: {count.why}"

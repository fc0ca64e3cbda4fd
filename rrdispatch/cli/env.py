"""``rrdispatch env``: the environment of an app's workers."""

from __future__ import annotations

import json

import click

from rrdispatch.cli.secrets import masked
from rrdispatch.cli.table import plain
from rrdispatch.control import selectors as chosen
from rrdispatch.control.ask import ask
from rrdispatch.control.definitions import Definition
from rrdispatch.control.statedir import NotRunningError


@click.command("env")
@click.argument("selector")
@click.option("--show-secrets", is_flag=True, help="Also what looks like one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(selector: str, show_secrets: bool, as_json: bool) -> None:
    """Print the environment of an app's workers; secrets are masked."""
    for target in chosen.resolve([selector]):
        found = environment(target.definition)
        shown = found if show_secrets else masked(found)
        if as_json:
            click.echo(json.dumps(shown))
            continue
        for key in sorted(shown):
            click.echo(f"{plain(key)}={plain(shown[key])}")


def environment(app: Definition) -> dict[str, str]:
    """Of the workers that run; else what a start would begin with."""
    try:
        found: dict[str, str] = ask(app.name, "launch")["environment"]
    except NotRunningError:
        return {**app.environ, **app.settings.get("env", {})}
    return found

"""``rrdispatch jlist``: pm2's name for ``list --json``."""

from __future__ import annotations

import json

import click

from rrdispatch.cli.listing import collect


@click.command("jlist")
def command() -> None:
    """Print all apps as one JSON array: the same as `list --json`."""
    click.echo(json.dumps(collect(())))

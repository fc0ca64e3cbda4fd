"""``rrdispatch doctor``: what there is to run on, and what that means."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from rrdispatch.cli import table
from rrdispatch.cli.table import plain
from rrdispatch.control import doctor
from rrdispatch.control.doctor import FAILS, OK, WORSE, Finding
from rrdispatch.errors import Error

SIGNS = {OK: ("ok", "32"), WORSE: ("worse", "33"), FAILS: ("FAILS", "31")}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
def command(as_json: bool) -> int:
    """Look at kernel, limits, build, Python, extras and state folder, and say what it means.

    Exit code 1 if something is so that apps cannot run.
    """
    found = doctor.examine()
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in found]))
    else:
        show(found)
    return Error.exit_code if any(finding.state == FAILS for finding in found) else 0


def show(found: Sequence[Finding]) -> None:
    colour, group = table.colourful(), ""
    widest = max(len(finding.name) for finding in found)
    for finding in found:
        if finding.group != group:
            group = finding.group
            click.echo(group)
        word, code = SIGNS[finding.state]
        sign = f"\033[{code}m{word:<5}\033[0m" if colour else f"{word:<5}"
        click.echo(f"  {sign}  {finding.name.ljust(widest)}  {plain(finding.value)}")
        for text in (finding.meaning, finding.hint and f"hint: {finding.hint}"):
            if text:
                click.echo(f"{'':<{widest + 11}}{plain(text)}")
    counts = [sum(finding.state == state for finding in found) for state in (WORSE, FAILS)]
    click.echo(f"{counts[1]} that fail, {counts[0]} that could be better")

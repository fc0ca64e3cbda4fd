"""``rrdispatch cpus``: how many cores there are to use, and why that many."""

from __future__ import annotations

import json

import click

from rrdispatch import cpus


@click.command("cpus")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(as_json: bool) -> None:
    """Show how many cores this process may use: what `-i max` comes to, and why.

    Looks at logical and physical cores, at the affinity, and at the CPU quota of the cgroup.
    """
    facts = cpus.detect()
    if as_json:
        click.echo(json.dumps(facts.as_dict()))
        return
    rows = (
        ("logical", str(facts.logical)),
        ("physical", "not known" if facts.physical is None else str(facts.physical)),
        ("affinity", str(facts.affinity)),
        ("quota", "none" if facts.quota is None else f"{facts.quota:g}"),
    )
    for name, value in rows:
        click.echo(f"{name:<9} {value}")
    click.echo(f"max       {cpus.count('max', facts)}")

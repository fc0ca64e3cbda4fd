"""``rrdispatch help``: the same as --help, where fingers look for it."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("name", metavar="COMMAND", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show what there is, or what a COMMAND does and takes."""
    above = ctx.find_root()
    group = above.command
    assert isinstance(group, click.Group)
    found = group if name is None else group.get_command(above, name)
    assert found is not None
    if name is None:
        click.echo(found.get_help(above))
        return
    with click.Context(found, info_name=name, parent=above) as inner:
        click.echo(found.get_help(inner))

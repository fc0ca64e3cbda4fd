"""The group of commands. It loads a command's file only when that command is named."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rrdispatch import __version__
from rrdispatch.cli.errors import guarded
from rrdispatch.errors import ConfigError
from rrdispatch.options import nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "config": "Check a settings file: what it would start, or what is wrong.",
    "init": "Write a commented settings file.",
    "completion": "Print a script by which a shell completes commands and apps.",
    "cpus": "Show how many cores there are to use, and why that many.",
    "doctor": "Look at what there is to run on, and say what it means.",
    "env": "Print the environment of an app's workers.",
    "help": "Show what there is, or what a command does and takes.",
    "id": "Print the ids of apps.",
    "kill": "Stop all apps.",
    "metrics": "Print figures of apps for Prometheus.",
    "pid": "Print the process ids of workers.",
    "ping": "Ask whether apps answer: the exit code says it.",
    "reload": "Replace all workers by new ones, losing nobody.",
    "reset": "Count the restarts of apps from 0 again.",
    "save": "Keep the list of apps as it is now, for resurrect.",
    "resurrect": "Start all apps that should run and do not.",
    "restart": "Stop workers and start others in their place.",
    "scale": "Have more workers, or fewer.",
    "show": "Show everything about an app.",
    "signal": "Send a signal to workers.",
    "delete": "Stop apps and take them out of the list.",
    "flush": "Empty the log files of apps.",
    "jlist": "Print all apps as one JSON array.",
    "monit": "Watch apps, workers and logs, live; act on them by a key.",
    "list": "Show the apps: id, state, workers, CPU, memory, connections.",
    "logs": "Show what workers printed, and what they print from now on.",
    "run": "Serve an app in the foreground, one worker per core.",
    "start": "Serve an app in the background, or start a stopped one again.",
    "startup": "Print systemd units, one per app; --write puts them in place.",
    "stop": "Stop apps: their workers finish what they have.",
    "unstartup": "Take systemd units away again.",
}
ALIASES = {
    "del": "delete", "ls": "list", "l": "list", "ps": "list", "status": "list", "describe": "show",
    "desc": "show", "info": "show", "sendSignal": "signal",
    "dump": "save", "ecosystem": "init",
}  # fmt: skip

EPILOG = "Exit codes and what they mean: docs/exit-codes.md. Settings: docs/configuration.md."


class Commands(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS and ctx.resilient_parsing:
            return None  # a Tab is no place for errors
        if cmd_name not in COMMANDS:
            near = nearest(cmd_name, COMMANDS)
            hint = f"did you mean {near}?" if near else "try 'rrdispatch --help'"
            raise ConfigError(f"there is no command {cmd_name!r}", hint=hint)
        module = importlib.import_module(f"rrdispatch.cli.{cmd_name}")
        command: click.Command = module.command
        if ctx.resilient_parsing:
            from rrdispatch.cli.completion import prepare

            return prepare(command, sorted(COMMANDS))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """click would load every command for its help."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=COMMANDS[name]) for name in sorted(COMMANDS)]
        found = [item for item in found if item.value.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=Commands,
    epilog=EPILOG,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "-v", "--version", message="rrdispatch %(version)s")
def group() -> None:
    """Serve a Python app on every core: each new connection goes to the next worker in turn."""


def run(arguments: Sequence[str]) -> int:
    """One command; whatever goes wrong is said in one shape."""
    return guarded(lambda: group.main(list(arguments), "rrdispatch", standalone_mode=False))

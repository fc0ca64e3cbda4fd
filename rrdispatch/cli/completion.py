"""``rrdispatch completion``: a shell's Tab knows commands, options, their values, and the apps.

The scripts are click's. What stands for an app among the arguments of a command is known by its
name, so that no command need care.
"""

from __future__ import annotations

import signal

import click
from click.shell_completion import CompletionItem, get_completion_class
from click.types import StringParamType

from rrdispatch.errors import Error

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RRDISPATCH_COMPLETE"  # in which the scripts say what they ask for
EPILOG = (
    'bash, zsh: eval "$(rrdispatch completion bash)" in ~/.bashrc or ~/.zshrc.  '
    "fish: rrdispatch completion fish > ~/.config/fish/completions/rrdispatch.fish"
)


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script by which SHELL completes commands, options and names of apps."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "rrdispatch", VARIABLE).source())


class AppName(StringParamType):
    """Any of those that are known; ``files``: or one of these."""

    name = "app"

    def __init__(self, *, files: bool = False) -> None:
        self._files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, param
        found = [CompletionItem(name) for name in _names() if name.startswith(incomplete)]
        # bash forgets what came before a word that stands for files.
        return [CompletionItem(incomplete, type="file"), *found] if self._files else found


class Word(StringParamType):
    """One of a few; others are as good."""

    name = "word"

    def __init__(self, *words: str) -> None:
        self._words = words

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, param
        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


class File(Word):
    """A path."""

    def __init__(self, kind: str = "file") -> None:
        super().__init__()
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, param
        return [CompletionItem(incomplete, type=self._kind)]


def _names() -> list[str]:
    """A Tab is no place for errors."""
    from rrdispatch.control import statedir

    try:
        return statedir.names()
    except (Error, OSError):
        return []


def prepare(found: click.Command, commands: list[str]) -> click.Command:
    """With types that can be completed; only where somebody asks for completions."""
    signals = sorted(each.name.removeprefix("SIG") for each in signal.Signals)
    arguments: dict[str, StringParamType] = {
        "selector": AppName(), "selectors": AppName(), "names": AppName(),
        "target": AppName(files=True), "arguments": File(),
        "SIGNAL": Word(*signals), "COMMAND": Word(*commands),
    }  # fmt: skip
    for parameter in found.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Argument):
            meant = arguments.get(parameter.metavar or "") or arguments.get(name)
            parameter.type = meant or parameter.type
        else:
            parameter.type = _of_option(name) or parameter.type
    return found


def _of_option(key: str) -> StringParamType | None:
    """Settings are declared with their values, not as click has it."""
    from rrdispatch.options import Kind
    from rrdispatch.settings import OPTIONS

    option = OPTIONS.get(key)
    if key == "config" or (option is not None and option.kind in (Kind.PATH, Kind.PROGRAM)):
        return File("dir" if key == "cwd" else "file")
    if option is not None and option.choices:
        return Word(*option.choices)
    if key == "instances":
        return Word("max", "physical")
    return None

"""click options made from the declaration in ``settings.py``; no option is written down twice.

Every value stays as it was typed: ``settings.py`` reads it, so that all sources share one
reader and one wording. It knows no command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from rrdispatch import settings
from rrdispatch.options import Kind, Option

F = TypeVar("F", bound=Callable[..., Any])

_REPEATABLE = (Kind.LIST, Kind.NUMBERS, Kind.MAPPING)


class SectionedCommand(click.Command):
    """A command whose help shows the options under the sections of the declaration."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        titles = titles_by_key()
        sections: dict[str, list[tuple[str, str]]] = {t: [] for t in (*titles.values(), "Other")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections[titles.get(parameter.name or "", "Other")].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def titles_by_key() -> dict[str, str]:
    """The section that each setting belongs to."""
    found: dict[str, str] = {}
    title = ""
    for key, option in settings.OPTIONS.items():
        title = option.begins or title
        found[key] = title
    return found


def setting_options(function: F) -> F:
    """All settings but the target, as options of a command; absent ones are None."""
    for key in reversed(list(settings.OPTIONS)):
        option = settings.OPTIONS[key]
        if key != "target" and option.typed:
            function = _option(key, option)(function)
    return function


def said(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was really typed: without absent options."""
    return {key: value for key, value in typed.items() if value is not None and value != ()}


def _option(key: str, option: Option) -> Callable[[F], F]:
    flag = settings.flag(key)
    if option.kind is Kind.SWITCH:
        if option.only_off:
            return click.option(
                f"--no-{flag[2:]}", key, flag_value=False, default=None, help=_help(key, option)
            )
        names = [*option.flags, f"{flag}/--no-{flag[2:]}"]
        return click.option(*names, key, default=None, help=_help(key, option))
    return click.option(
        *option.flags,
        flag,
        key,
        metavar=option.metavar or _metavar(option),
        multiple=option.kind in _REPEATABLE,
        help=_help(key, option),
    )


def _metavar(option: Option) -> str:
    if option.choices:
        return "|".join(option.choices)
    return {
        Kind.INTEGER: "N",
        Kind.DURATION: "TIME",
        Kind.PATH: "PATH",
        Kind.PROGRAM: "PATH",
        Kind.SIZE: "SIZE",
    }.get(option.kind, "TEXT")


def _help(key: str, option: Option) -> str:
    shown = shown_default(key)
    return f"{option.help}  [default: {shown}]" if shown else option.help


def shown_default(key: str) -> str:
    """A default as it would be typed; nothing for an empty one."""
    value = getattr(settings.DEFAULTS, key)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return shown_duration(value)
    if settings.OPTIONS[key].kind is Kind.SIZE:
        return shown_size(value)
    return "" if value is None or value == {} else str(value)


def shown_duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def shown_size(size: int) -> str:
    for unit, factor in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)

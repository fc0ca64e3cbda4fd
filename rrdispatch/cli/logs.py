"""``rrdispatch logs``: what workers printed, the last lines first, then what comes."""

from __future__ import annotations

import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from heapq import merge
from typing import Any

import click

from rrdispatch.cli.errors import say, warn
from rrdispatch.cli.escapes import harmless
from rrdispatch.cluster.logformat import ERR, OUT, Line, iso
from rrdispatch.control import selectors
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logplaces import AppLogs, logs_of
from rrdispatch.control.logread import Reader, last
from rrdispatch.errors import ConfigError, Error
from rrdispatch.options import Wrong, duration

LOOK = 0.1  # for more lines
FILES = 1.0  # for more files: slots that were added
COLOURS = {OUT: "\x1b[32m", ERR: "\x1b[31m", None: "\x1b[36m"}


@click.command("logs")
@click.argument("selectors", nargs=-1)
@click.option("-n", "--lines", type=click.IntRange(0), help="How many of each file.  [default: 15]")
@click.option("--out", "only", flag_value=OUT, help="Of stdout only.")
@click.option("--err", "only", flag_value=ERR, help="Of stderr only.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object per line.")
@click.option("--raw", is_flag=True, help="Just what was printed.")
@click.option("--time", "--timestamp", "times", is_flag=True, help="With the time of each line.")
@click.option("--grep", metavar="RE", help="Only lines in which this is found.")
@click.option("--since", metavar="TIME", help="Not older than 10m, 2h, or 2026-11-26T05:00 (UTC).")
@click.option("-f", "--follow/--no-follow", default=True, help="Go on with what comes.")
@click.option("--nostream", is_flag=True, hidden=True)
def command(selectors: Sequence[str], **typed: Any) -> None:
    """Show what the workers of apps printed; of all apps if none is named."""
    asked = Asked(**typed)
    apps = named(selectors)
    begin = began(asked.since) if asked.since is not None else ""
    slots = {app.plan.name: app.slots for app in apps}
    wanted = Filter(asked.only, pattern(asked.grep), slots, begin)
    show = Show(asked.as_json, asked.raw, asked.times, sys.stdout.isatty())
    tail = Tail(apps, wanted, show.line, asked.count, begin)
    tail.first()
    if not asked.follow or asked.nostream:
        return
    if sys.stderr.isatty():
        say(f"following {', '.join(app.plan.name for app in apps)}; Ctrl-C ends")
    tail.follow()


@dataclass(frozen=True)
class Asked:
    """The options."""

    lines: int | None
    only: str | None
    as_json: bool
    raw: bool
    times: bool
    grep: str | None
    since: str | None
    follow: bool
    nostream: bool

    @property
    def count(self) -> int | None:
        """Of lines that are shown first; None: all since a time."""
        return self.lines if self.lines is not None or self.since is not None else 15


def named(texts: Sequence[str]) -> list[AppLogs]:
    """Each app once, the whole app if it was named as well as slots of it."""
    if texts:
        return [logs_of(app, slots) for app, slots in _chosen(texts)]
    found = selectors.known()
    if not found:
        raise ConfigError("there are no apps", hint="rrdispatch start TARGET")
    logs = []
    for definition in found:
        try:
            logs.append(logs_of(definition))
        except Error as error:  # noqa: PERF203 (nobody named it: the others have logs)
            warn(error.message, error.hint or "")
    return logs


def _chosen(texts: Sequence[str]) -> Iterator[tuple[Definition, frozenset[int] | None]]:
    apps: dict[str, Definition] = {}
    slots: dict[str, set[int | None]] = {}
    for target in selectors.resolve(texts, slots=True, gone=True):
        apps[target.name] = target.definition
        slots.setdefault(target.name, set()).add(target.slot)
    for name, app in apps.items():
        some = frozenset(slot for slot in slots[name] if slot is not None)
        yield app, None if None in slots[name] else some


def pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"--grep: {text!r} is no regular expression: {error}",
            hint="put a \\ before a character that is meant as itself",
        ) from None


def began(text: str) -> str:
    """A time as it stands in the logs."""
    try:
        return iso(int((time.time() - duration(text)) * 1000))
    except Wrong:
        pass
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ConfigError(
            f"--since: {text!r} is no time", hint="for example 10m, 2h, 2026-11-26T05:00"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return iso(int(when.timestamp() * 1000))


@dataclass(frozen=True)
class Filter:
    """Which lines are shown."""

    only: str | None
    grep: re.Pattern[str] | None
    slots: dict[str, frozenset[int] | None]  # by app; None: all of them
    since: str = ""

    def __call__(self, line: Line) -> bool:
        slots = self.slots.get(line.app)
        return (
            (self.only is None or line.stream == self.only)
            and (slots is None or line.slot in slots)
            and not (self.since and line.stamp and line.stamp < self.since)
            and (self.grep is None or bool(self.grep.search(line.message.decode(errors="replace"))))
        )


@dataclass
class Show:
    """How a line is shown: on a terminal made harmless, elsewhere as it is."""

    as_json: bool
    raw: bool
    times: bool
    terminal: bool
    colour: bool = field(init=False)

    def __post_init__(self) -> None:
        import os

        self.colour = self.terminal and not os.environ.get("NO_COLOR")

    def line(self, line: Line) -> None:
        sys.stdout.buffer.write(self.text(line) + b"\n")

    def text(self, line: Line) -> bytes:
        if self.as_json:
            return line.json().encode()
        head = "" if self.raw else self._head(line)
        if not self.terminal:
            return head.encode() + line.message
        shown = harmless(line.message, self.colour)
        if head and self.colour:
            head = f"{COLOURS[line.stream]}{head}\x1b[0m"
        return (head + shown).encode(errors="replace")

    def _head(self, line: Line) -> str:
        worker = line.app if line.slot is None else f"{line.app}.{line.slot}"
        stamp = f"{line.stamp} " if self.times and line.stamp else ""
        stream = f" {line.stream}" if line.stream else ""
        return f"{stamp}{worker}{stream} {'+' if line.part else '|'} "


class Tail:
    """All files of some apps."""

    def __init__(
        self,
        apps: Sequence[AppLogs],
        wanted: Filter,
        show: Callable[[Line], None],
        count: int | None,
        since: str,
    ) -> None:
        self._apps = apps
        self._wanted = wanted
        self._show = show
        self._readers: dict[str, Reader] = {}
        streams = (OUT, ERR) if wanted.only is None else (wanted.only,)
        self._streams = streams
        for app in apps:
            for ref in app.refs(streams):
                self._readers.setdefault(ref.path, last(ref, wanted, count, since))

    def first(self) -> None:
        """What is there; in the order of time, as far as lines have one."""
        for line in merge(*map(self._all, self._readers.values()), key=lambda line: line.stamp):
            self._show(line)
        sys.stdout.flush()

    def _all(self, reader: Reader) -> Iterator[Line]:
        """Until there is nothing more at this moment."""
        more = True
        while more:
            more = False
            for line in reader.read():
                more = True
                if self._wanted(line):
                    yield line

    def follow(self) -> None:
        """Until it is interrupted, or nobody reads what we write."""
        gone = select.poll()
        gone.register(sys.stdout, 0)
        looked = time.monotonic()
        while True:
            self._show_news()
            if gone.poll(LOOK * 1000):
                raise BrokenPipeError
            if time.monotonic() - looked > FILES:
                looked = time.monotonic()
                self._look_for_files()

    def _show_news(self) -> None:
        for reader in self._readers.values():
            for line in reader.read():
                if self._wanted(line):
                    self._show(line)
        sys.stdout.flush()

    def _look_for_files(self) -> None:
        for app in self._apps:
            for ref in app.refs(self._streams):
                if ref.path not in self._readers:
                    self._readers[ref.path] = Reader(ref)

"""The dashboard: draws what a source has seen, asks before it does anything, never waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Static

from rrdispatch.cli.table import plain
from rrdispatch.monit import shown
from rrdispatch.monit.grid import Grid, Row
from rrdispatch.monit.live import Seen
from rrdispatch.monit.logpane import Lines, LogPane
from rrdispatch.monit.questions import Question, question
from rrdispatch.monit.screens import Ask, Help

FOOT = (
    ("q", "quit"), ("?", "help"), ("r", "reload"), ("R", "restart"), ("+ -", "scale"),
    ("s", "stop"), ("tab", "workers"), ("l", "logs"), ("e", "err"),
)  # fmt: skip


class Ran(Protocol):
    """``commands.Command`` is one."""

    words: str
    since: float

    async def done(self) -> tuple[int, str, str]: ...


class Source(Protocol):
    """Where it all comes from; ``live.Live`` is one."""

    async def start(self) -> None: ...
    def seen(self) -> list[Seen]: ...
    def tail(self, name: str, slot: int | None) -> Lines: ...
    def command(self, *words: str) -> Ran: ...
    async def close(self) -> None: ...


class Dashboard(Screen[None]):
    """Apps, workers of the chosen one, its logs."""

    BINDINGS = [  # noqa: RUF012 (textual's own way)
        Binding("q,ctrl+c", "leave", "quit"),
        Binding("question_mark,h,f1", "help", "help"),
        Binding("r", "ask('reload')", "reload"),
        Binding("R", "ask('restart')", "restart"),
        Binding("s", "ask('stop')", "stop"),
        Binding("plus,equals_sign", "ask('scale', 1)", "more"),
        Binding("minus", "ask('scale', -1)", "fewer"),
        Binding("tab,shift+tab,enter", "other", "workers"),
        Binding("escape", "back", "back"),
        Binding("l", "logs", "logs"),
        Binding("e", "streams", "streams"),
    ]

    def __init__(self, source: Source, every: float) -> None:
        super().__init__()
        self._source = source
        self._every = every
        self._seen: list[Seen] = []
        self._under_way: dict[asyncio.Task[None], Ran] = {}
        self._told = Text()
        self._big_logs = False
        self._head, self._about = Static(id="head"), Static(id="about")
        self._tell, self._foot = Static(id="told"), Static(id="foot")
        self._apps = Grid(shown.APPS, shown.ROOM, 6, "apps")
        self._workers = Grid(shown.WORKERS, shown.ROOM, 10, "workers")
        self._logs = LogPane(every / 2, "logs")

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._apps
        yield self._about
        yield self._workers
        yield self._logs
        yield self._tell
        yield self._foot

    def on_mount(self) -> None:
        self._apps.focus()
        self.look()
        self.set_interval(min(self._every, 0.5), self.look)

    def on_resize(self) -> None:
        self.look()

    def on_grid_chosen(self) -> None:
        self._draw()

    def on_descendant_focus(self) -> None:
        self._draw()

    def on_unmount(self) -> None:
        """Commands under way go on without us."""
        self._logs.leave()
        for task in self._under_way:
            task.cancel()

    # ---- what is seen --------------------------------------------------------------------------

    def look(self) -> None:
        """What the source knows by now."""
        self._seen = self._source.seen()
        self._draw()

    @property
    def seen(self) -> Seen | None:
        """The chosen app."""
        return next((one for one in self._seen if one.name == self._apps.chosen), None)

    @property
    def slot(self) -> int | None:
        """Of the chosen worker, if a worker is chosen."""
        if self.seen is None or not self._workers.has_focus:
            return None
        chosen = self._workers.chosen
        workers = self.seen.row["workers"]
        return next((one["slot"] for one in workers if str(one["id"]) == chosen), None)

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self._apps.show(
            [_app(one, self._apps.bar_room()) for one in self._seen],
            "apps" if self._seen else "no apps: rrdispatch start TARGET",
        )
        one = self.seen
        workers = one.row["workers"] if one else []
        title = f"workers of {plain(one.name)}" if one else "workers"
        self._workers.show(
            [_worker(one, each, self._workers.bar_room()) for each in workers] if one else [], title
        )
        self._lay_out(len(workers))
        self._head.update(_head(self._seen, self.size.width))
        self._about.update(_about(one, self.size.width - 2) if one else "")
        self._tell.update(self._news())
        self._foot.update(_foot(self.size.width))
        name = one.name if one else None
        of = (name, self.slot) if name else None
        self._logs.follow(of, lambda: self._source.tail(str(name), of[1] if of else None))

    def _lay_out(self, workers: int) -> None:
        content = self.size.height - 4  # head, about, told, foot
        heights = shown.heights(content, max(1, len(self._seen)), workers, self._big_logs)
        for widget, height in zip((self._apps, self._workers, self._logs), heights, strict=True):
            widget.display = height > 0
            widget.styles.height = max(0, height)

    def _news(self) -> Text:
        if not self._under_way:
            return self._told
        now = time.monotonic()
        told = [f"{each.words}: {now - each.since:.0f} s" for each in self._under_way.values()]
        return Text().append(" … " + "   ".join(told), "yellow")

    # ---- keys ----------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.app.push_screen(Help())

    def action_other(self) -> None:
        """From the apps to the workers, and back."""
        if self._big_logs:
            return
        (self._workers if self._apps.has_focus else self._apps).focus()

    def action_back(self) -> None:
        if self._big_logs:
            self.action_logs()
        self._apps.focus()

    def action_logs(self) -> None:
        self._big_logs = not self._big_logs
        self._lay_out(len(self.seen.row["workers"]) if self.seen else 0)
        (self._logs if self._big_logs else self._apps).focus()

    def action_streams(self) -> None:
        self._logs.next_stream()

    def action_ask(self, what: str, by: int = 0) -> None:
        """The question, and after yes the command."""
        if self.seen is None:
            return
        found = question(self.seen.row, self.slot, what, by)
        if isinstance(found, Question):
            self.app.push_screen(Ask(found), self._do)
        else:
            self._told = Text(found)
            self._draw()

    def action_leave(self) -> None:
        if not self._under_way:
            self.app.exit()
            return
        names = ", ".join(each.words for each in self._under_way.values())
        ask = Question([], f"Under way: {names}. It goes on by itself.\nLeave all the same?")
        self.app.push_screen(Ask(ask), lambda yes: self.app.exit() if yes is not None else None)

    def _do(self, words: list[str] | None) -> None:
        if words is None:
            return
        command = self._source.command(*words)
        task = asyncio.get_running_loop().create_task(self._run(command))
        self._under_way[task] = command
        task.add_done_callback(self._ended)
        self._draw()

    async def _run(self, command: Ran) -> None:
        try:
            code, out, err = await command.done()
        except OSError as error:
            code, out, err = 1, "", f"error: {error}"
        self._told = _outcome(command.words, code, out, err)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if self.is_running:
            self.look()


def _app(seen: Seen, room: int) -> Row:
    line = shown.sparkline(seen.rates, room) if seen.row["primary_pid"] else ""
    styles = {"status": shown.style(seen.row["status"]), "bar": "cyan"}
    return Row(seen.name, shown.app_cells(seen), styles, line)


def _worker(seen: Seen, worker: dict[str, Any], room: int) -> Row:
    part = shown.shares(seen).get(worker["id"], 0.0)
    most = max(shown.shares(seen).values(), default=0.0)
    styles = {"status": shown.style(shown.worker_state(worker)), "bar": "cyan"}
    cells = shown.worker_cells(seen, worker)
    return Row(str(worker["id"]), cells, styles, shown.bar(part / most if most else 0.0, room))


def _head(seen: list[Seen], width: int) -> Text:
    text = Text().append(" rrdispatch monit   ", "bold").append(shown.summary(seen))
    clock = time.strftime("%H:%M:%S ")
    if text.cell_len + len(clock) < width:
        text.append(" " * (width - text.cell_len - len(clock))).append(clock)
    return text


def _about(seen: Seen, width: int) -> Text:
    """Its rate over time, and where it listens; or why it does not run."""
    about = shown.about(seen)
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    if seen.row["primary_pid"] is None or seen.hint:
        return text.append(about, shown.style(seen.row["status"]))
    text.append(about)
    room = width - len(about) - 3
    return text.append("   ").append(shown.rate_line(seen, room), "cyan") if room > 16 else text


def _foot(width: int) -> Text:
    text = Text(" ")
    for key, what in FOOT:
        if text.cell_len + len(key) + len(what) + 1 < width:
            text.append(key, "reverse").append(f" {what} ")
    return text


def _outcome(words: str, code: int, out: str, err: str) -> Text:
    """The last word of a command; of one that failed its error and what to do."""
    if code == 0:
        return Text().append(" " + plain((out.strip().splitlines() or [words])[-1]), "cyan")
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    told = "  ".join(lines) or f"{words} ended with exit code {code}"
    return Text().append(" " + plain(told), "bold red")

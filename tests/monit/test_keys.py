"""Every key of the dashboard, tried on a source that only remembers what was asked of it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable

import pytest
from textual.binding import Binding

from rrdispatch.cluster.logformat import Line
from rrdispatch.monit.dashboard import Dashboard
from rrdispatch.monit.grid import Grid
from rrdispatch.monit.screens import Ask, Help
from tests.monit.fake import Fake, View, app, view

MANY = 40
KEYS_OF_NOTHING = ("r", "R", "s", "plus", "minus", "tab", "enter", "escape", "l", "e", "up", "end")


def played(source: Fake, play: Callable[[View], Awaitable[None]], **more: tuple[int, int]) -> None:
    async def all_of_it() -> None:
        async with view(source, **more) as seen:
            await play(seen)

    asyncio.run(all_of_it())


def shop() -> Fake:
    return Fake(app("web", 4), app("api", 2), app("mailer", status="stopped"))


TRIED = {
    Dashboard: "q ctrl+c question_mark h f1 r R s plus equals_sign minus tab shift+tab enter "
    "escape l e",
    Grid: "up k down j pageup pagedown home g end G",
    Ask: "y enter n escape q ctrl+c plus equals_sign minus",
    Help: "escape q enter question_mark h f1 space ctrl+c",
}


def test_no_key_is_left_out_here() -> None:
    for screen, keys in TRIED.items():
        found = []
        for binding in screen.BINDINGS:
            assert isinstance(binding, Binding)
            found += binding.key.split(",")
        assert sorted(found) == sorted(keys.split()), screen


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leave(key: str) -> None:
    source = shop()

    async def play(seen: View) -> None:
        await seen.pilot.press(key)
        await seen.until(lambda: not seen.monit.is_running, "it ends")

    played(source, play)
    assert source.closed
    assert not source.commands


def test_help_opens_and_closes() -> None:
    async def play(seen: View) -> None:
        for key in ("question_mark", "h", "f1"):
            assert "this help" in await seen.press(key)
            assert seen.top == "Help"
            await seen.press("escape")
        for key in TRIED[Help].split():
            await seen.press("h")
            assert "this help" not in await seen.press(key)
            assert seen.top == "Dashboard"

    played(shop(), play)


def test_help_fits_the_smallest_screen() -> None:
    async def play(seen: View) -> None:
        text = await seen.press("h")
        assert "esc  back" in text
        assert "leave; the apps go on" in text

    played(shop(), play)


COMMANDS = {
    "r": "reload web", "R": "restart web", "s": "stop web", "plus": "scale web 5",
    "equals_sign": "scale web 5", "minus": "scale web 3",
}  # fmt: skip


def test_a_command_after_yes() -> None:
    source = shop()

    async def play(seen: View) -> None:
        for count, (key, command) in enumerate(COMMANDS.items()):
            yes = ("y", "enter")[count % 2]
            assert f"$ rrdispatch {command}" in await seen.press(key)
            assert len(source.commands) == count
            assert f"… {command}: " in await seen.press(yes)
            assert source.commands[count:] == [command]
            source.ran[-1].end.set_result((0, f"web: {count} is done\n", ""))
            await seen.until_seen(f"web: {count} is done")

    played(source, play)


def test_nothing_after_no() -> None:
    source = shop()

    async def play(seen: View) -> None:
        # The same question for all, so each key and each no once: a key costs a tenth of a second.
        for key, no in zip(COMMANDS, itertools.cycle(("n", "escape", "q", "ctrl+c")), strict=False):
            await seen.pilot.press(key)
            assert seen.top == "Ask"
            await seen.pilot.press(no)
            assert seen.top == "Dashboard"

    played(source, play)
    assert not source.commands


def test_a_scale_is_steered_within_the_question() -> None:
    source = shop()

    async def play(seen: View) -> None:
        assert "from 4 to 6 workers" in await seen.press("plus", "plus")
        assert "from 4 to 7 workers" in await seen.press("equals_sign")
        assert "from 4 to 1 worker." in await seen.press(*["minus"] * 9)
        await seen.press("y")

    played(source, play)
    assert source.commands == ["scale web 1"]


def test_what_cannot_be_done_is_said() -> None:
    source = Fake(app("one", 1), app("mailer", status="stopped"), app("sad", status="errored"))

    async def play(seen: View) -> None:
        assert "one has 1 already" in await seen.press("minus")
        for key in ("r", "s", "plus", "minus"):
            assert "mailer does not run. R starts it." in await seen.press("end", "up", key)
        assert "$ rrdispatch start mailer" in await seen.press("R")
        await seen.press("y", "down", "R", "y")

    played(source, play)
    assert source.commands == ["start mailer", "start sad"]


def test_no_app_at_all() -> None:
    source = Fake()

    async def play(seen: View) -> None:
        assert "no apps: rrdispatch start TARGET" in seen.text()
        for key in KEYS_OF_NOTHING:
            await seen.press(key)
            assert seen.top == "Dashboard"
        source.apps = [app("web")]
        assert "● online" in await seen.look()

    played(source, play)
    assert not source.commands


def test_a_worker_is_chosen() -> None:
    source = shop()

    async def play(seen: View) -> None:
        for there in ("tab", "shift+tab", "enter"):
            await seen.press(there, "home", "down")
            assert source.asked[-1] == ("web", 1)
            assert "logs of web:1" in seen.text()
            assert "$ rrdispatch restart web:1" in await seen.press("R")
            assert "$ rrdispatch reload web" in await seen.press("n", "r")
            await seen.press("n", "escape")
            assert source.asked[-1] == ("web", None)
            assert "logs of web──" in seen.text()
        await seen.press("tab", "tab")
        assert source.asked[-1] == ("web", None)

    played(source, play)


def chosen(text: str) -> str:
    """The app's name."""
    found = re.search(r"^▸ +(?:[0-9]+ +)?([a-z0-9-]+)", text, re.MULTILINE)
    assert found, text
    return found[1]


def test_a_chosen_line_stays_chosen() -> None:
    source = shop()

    async def play(seen: View) -> None:
        assert chosen(await seen.press("down")) == "api"
        source.apps.insert(0, app("a-new-one"))
        assert chosen(await seen.look()) == "api"
        source.apps = [one for one in source.apps if one.name != "api"]
        assert chosen(await seen.look()) == "mailer"

    played(source, play)


def test_up_and_down_among_many() -> None:
    source = Fake(*[app(f"app-{n:02}", id=n) for n in range(MANY)])

    async def play(seen: View) -> None:
        assert f"of {MANY})" in seen.text()
        for keys, at in (
            (["j", "j", "down"], 3), (["k"], 2), (["up"], 1), (["end"], MANY - 1), (["home"], 0),
            (["G"], MANY - 1), (["g"], 0), (["up"], 0),
        ):  # fmt: skip
            assert chosen(await seen.press(*keys)) == f"app-{at:02}"
        assert chosen(await seen.press("pagedown")) != "app-00"
        assert chosen(await seen.press("pageup")) == "app-00"

    played(source, play)


def lines(count: int) -> list[Line]:
    return [
        Line(b"line %d" % n, "web", n % 4, ("out", "err")[n % 2], f"2026-11-26T05:{n:02}:00.000Z")
        for n in range(count)
    ]


def test_logs_of_both_streams_or_one() -> None:
    source = shop()
    source.logs["web"] = lines(6)

    async def play(seen: View) -> None:
        await seen.until_seen("line 5")
        text = await seen.press("e")
        assert "stderr only" in text
        assert "line 5" in text
        assert "line 4" not in text
        text = await seen.press("e")
        assert "stdout only" in text
        assert "line 5" not in text
        assert "line 4" in text
        text = await seen.press("e")
        assert "line 4" in text
        assert "line 5" in text

    played(source, play)


def test_logs_on_the_whole_screen() -> None:
    source = shop()
    source.logs["web"] = lines(300)

    async def play(seen: View) -> None:
        await seen.until_seen("line 299")
        small = seen.text().count("line ")
        text = await seen.press("l")
        await seen.until(lambda: seen.text().count("line ") > small + 5, "more lines")
        assert "workers of web" not in text
        await seen.press("pageup", "up")
        await seen.until(lambda: "line 299" not in seen.text(), "it scrolls")
        await seen.press("tab", "enter")
        assert "workers of web" in await seen.press("l")
        await seen.press("l")
        assert "workers of web" in await seen.press("escape")

    played(source, play)


def test_a_log_paints_nothing_else() -> None:
    source = shop()
    source.logs["web"] = [Line(b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m [bold]x[/]", "web", 0)]

    async def play(seen: View) -> None:
        await seen.until_seen("\\x1b]0;title\\x07\\x1b[2Jred [bold]x[/]")

    played(source, play)


def test_an_app_without_log_files_is_said_once() -> None:
    async def play(seen: View) -> None:
        await seen.until_seen("it writes no files")
        await seen.pilot.pause(0.5)
        assert seen.text().count("it writes no files") == 1

    played(shop(), play)


def test_a_failed_command_says_why_and_what_to_do() -> None:
    source = shop()

    async def play(seen: View) -> None:
        await seen.press("r", "y")
        told = "web:1 ready\nerror: it was rolled back\nhint: mend it\n"
        source.ran[0].end.set_result((6, "", told))
        await seen.until_seen("error: it was rolled back  hint: mend it")

    played(source, play)


def test_who_leaves_while_a_command_runs_is_asked() -> None:
    source = shop()

    async def play(seen: View) -> None:
        await seen.press("s", "y")
        assert "Under way: stop web" in await seen.press("q")
        await seen.press("n")
        assert seen.top == "Dashboard"
        await seen.press("q", "y")
        await seen.until(lambda: not seen.monit.is_running, "it ends")

    played(source, play)
    assert source.commands == ["stop web"]

"""What is on the screen, at the sizes and in the states that there are."""

from __future__ import annotations

import asyncio

import pytest

from tests.monit.fake import Fake, View, app, view, worker
from tests.monit.test_keys import played

SIZES = [(80, 24), (100, 30), (160, 50), (40, 12), (20, 6)]


def busy() -> Fake:
    reloading = app("admin-backend", 2, status="reloading")
    reloading.row["workers"] += [worker(0, id=9, generation=2, state="starting")]
    errored = app("sad", status="errored", error={"message": "no worker", "hint": "mend it"})
    return Fake(app("web", 16), reloading, app("mailer", status="stopped"), errored)


def test_no_line_is_longer_than_the_screen() -> None:
    async def play(seen: View) -> None:
        for size in [*SIZES, SIZES[0]]:
            await seen.pilot.resize_terminal(*size)
            for key in ("tab", "l", "h", "escape", "r", "n"):
                lines = (await seen.press(key)).split("\n")
                assert len(lines) == size[1]
                assert max(map(len, lines)) <= size[0]
        assert "● online" in seen.text()

    played(busy(), play, size=SIZES[0])


def test_all_that_is_promised_is_there_at_80_by_24() -> None:
    async def play(seen: View) -> None:
        text = seen.text()
        for word in (
            "web", "● online", "16/16", "25%", "64mb", "conn/s", "pend", "… reloading", "○ stopped",
            "x errored", "workers of web", "split", "━━━━━━━", "▁", "highest", "logs of web",
            "127.0.0.1", "q quit", "e err", "(1 to ",
        ):  # fmt: skip
            assert word in text, word
        assert "no worker (mend it)" in await seen.press("end")
        assert "starting" in await seen.press("home", "down")

    played(busy(), play)


def test_an_uneven_split_is_seen() -> None:
    source = Fake(app("web", 2))
    source.apps[0].taken = {1: 90, 2: 10}

    async def play(seen: View) -> None:
        bars = {
            line.split()[-2]: line.split()[-1]
            for line in seen.text().split("\n")
            if "● ready" in line
        }
        assert set(bars) == {"90%", "10%"}
        assert len(bars["90%"]) > 3 * len(bars["10%"])

    played(source, play, size=(120, 30))


def test_a_primary_that_does_not_answer() -> None:
    source = Fake(app("web", 2, status="not answering"))
    source.apps[0].hint = "is it stopped?"

    async def play(seen: View) -> None:
        text = seen.text()
        assert "? not answering" in text
        assert "is it stopped?" in text

    played(source, play)


def colours(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Those that are on the screen."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    async def found() -> set[str]:
        source = busy()
        async with view(source) as seen:
            await seen.press("r", "y", "s", "y")
            source.ran[0].end.set_result((1, "", "error: no"))
            await seen.look()
            strips = seen.monit.screen._compositor.render_strips()
            filters = seen.monit._filters
            styles = set()
            for strip in strips:
                segments = list(strip)
                for each in filters:
                    if each.enabled:
                        segments = each.apply(segments, seen.monit.screen.background_colors[1])
                styles |= {segment.style for segment in segments if segment.style}
            return {
                colour.name
                for style in styles
                for colour in (style.color, style.bgcolor)
                if colour is not None and not colour.is_default
            }

    return asyncio.run(found())


def test_only_the_terminals_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    found = colours(False, monkeypatch)
    assert {"cyan", "yellow", "red"} <= found
    assert not [name for name in found if name.startswith("#")]


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert colours(True, monkeypatch) == set()

"""The table of ``list``: it fits, it drops what matters least, and it colours only what it may."""

from __future__ import annotations

import pytest

from rrdispatch.cli.listing import COLUMNS, cells
from rrdispatch.cli.table import plain, render, shown_bytes, shown_time

ROW = {
    "id": 3, "name": "a-shop-with-a-rather-long-name", "namespace": "default", "mode": "app",
    "primary_pid": 4194303, "uptime": 7300.0, "restarts": 12, "status": "online", "serving": 4,
    "instances": 4, "cpu": 99.6, "memory": 300 << 20, "connections": 812,
    "connections_per_second": 12345.0, "pending": 3,
}  # fmt: skip


@pytest.mark.parametrize("width", [200, 132, 100, 80, 60, 50, 40])
def test_it_fits(width: int) -> None:
    lines = render(COLUMNS, [cells(ROW)], width).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= width


def test_what_stays_longest() -> None:
    assert "conn/s" in render(COLUMNS, [cells(ROW)], 200)
    narrow = render(COLUMNS, [cells(ROW)], 50)
    assert "conn/s" not in narrow
    for title in ("id", "name", "status"):
        assert title in narrow
    assert "…" in render(COLUMNS, [cells(ROW)], 30)


def test_colour_is_asked_for_and_moves_nothing() -> None:
    without = render(COLUMNS, [cells(ROW)], 200)
    coloured = render(COLUMNS, [cells(ROW)], 200, colour=True)
    assert "\033" not in without
    assert "\033[32m online" not in coloured
    assert "\033[32monline\033[0m" in coloured
    assert coloured.replace("\033[32m", "").replace("\033[0m", "") == without


def test_a_stopped_app_has_no_numbers() -> None:
    stopped = {**ROW, "primary_pid": None, "status": "stopped"}
    shown = cells(stopped)
    assert {shown[key] for key in ("pid", "uptime", "cpu", "memory", "connections")} == {"-"}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (100000, "1D")],
)
def test_times(seconds: float, shown: str) -> None:
    assert shown_time(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0b"), (1023, "1023b"), (1536, "1.5kb"), (3 << 30, "3.0gb")]
)
def test_sizes(count: int, shown: str) -> None:
    assert shown_bytes(count) == shown


def test_what_a_terminal_would_act_on() -> None:
    assert plain("a\033[2Jb\rc é") == "a?[2Jb?c é"

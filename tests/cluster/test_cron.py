"""--cron-restart: a reload at given hours, over summer time and clocks that are set."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rrdispatch.cluster import cron
from rrdispatch.cluster.cron import Schedule, following, local_zone, require
from rrdispatch.errors import ConfigError, MissingExtraError
from tests.cluster.service import LIMIT, app, running
from tests.harness.servers import Server, Service, rrdispatch_command, wait_until

UTC = timezone.utc
BERLIN = "Europe/Berlin"
HOUR = 3600.0


def zone(name: str = BERLIN) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except KeyError:
        pytest.skip("this machine has no table of time zones")


def at(text: str, where: timezone | ZoneInfo = UTC) -> float:
    """``2026-03-29 03:00`` there; with ``+1`` the second of an hour that comes twice."""
    moment, _, fold = text.partition("+")
    return datetime.fromisoformat(moment).replace(tzinfo=where, fold=int(fold or 0)).timestamp()


@pytest.mark.parametrize(
    ("expression", "after", "next_one"),
    [
        ("0 3 * * *", "2026-01-01 02:59:59", "2026-01-01 03:00"),
        ("0 3 * * *", "2026-01-01 03:00", "2026-01-02 03:00"),
        ("*/15 9-17 * * 1-5", "2026-01-02 17:50", "2026-01-05 09:00"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("@daily", "2026-01-01 12:00", "2026-01-02 00:00"),
        ("*/10 * * * * *", "2026-01-01 12:00:01", "2026-01-01 12:00:10"),
    ],
)
def test_the_next_of_its_times(expression: str, after: str, next_one: str) -> None:
    assert following(expression, at(after), UTC) == at(next_one)


def test_an_hour_that_is_skipped_is_made_up_for_and_one_that_comes_twice_counts_once() -> None:
    berlin = zone()
    missing = following("30 2 * * *", at("2026-03-28 12:00", berlin), berlin)
    assert missing == at("2026-03-29 01:00")  # 03:00 there, where 02:00 should have been
    assert following("30 2 * * *", missing, berlin) == at("2026-03-30 02:30", berlin)
    first = following("30 2 * * *", at("2026-10-24 12:00", berlin), berlin)
    assert first == at("2026-10-25 02:30+0", berlin)
    assert following("30 2 * * *", first, berlin) == at("2026-10-26 02:30", berlin)


def looks(schedule: Schedule, begin: float, seconds: float, step: float = 30.0) -> list[float]:
    """When it was due, on a clock that goes as it should."""
    times = [begin + step * number for number in range(1, int(seconds / step) + 1)]
    return [now for now in times if schedule.is_due(now)]


def test_it_is_due_once_each_time() -> None:
    begin = at("2026-01-01 00:00:10")
    schedule = Schedule("0 3 * * *", begin, UTC)
    due = looks(schedule, begin, 3 * 24 * HOUR)
    assert due == [at(f"2026-01-0{day} 03:00:10") for day in (1, 2, 3)]


@pytest.mark.parametrize("back", [60.0, HOUR, 2.5 * HOUR])
def test_a_clock_that_is_set_back_a_little_repeats_nothing(back: float) -> None:
    begin = at("2026-01-01 02:00")
    schedule = Schedule("0 3 * * *", begin, UTC)
    assert len(looks(schedule, begin, 1.01 * HOUR)) == 1
    assert looks(schedule, begin + 1.01 * HOUR - back, 20 * HOUR) == []


def test_a_clock_that_is_set_forth_a_little_drops_nothing_and_several_count_as_one() -> None:
    begin = at("2026-01-01 02:50")
    schedule = Schedule("*/5 * * * *", begin, UTC)
    assert schedule.is_due(begin + 2 * HOUR)
    assert not schedule.is_due(begin + 2 * HOUR + 30)
    assert schedule.next == at("2026-01-01 04:55")


def test_what_raises_once_is_called_again() -> None:
    def fails() -> None:
        raise RuntimeError("once")

    async def main() -> None:
        clock = [at("2026-01-01 02:59:59")]
        each = cron.Cron("0 3 * * *", fails, lambda: clock[0])
        before, clock[0] = each._timer, at("2026-01-01 03:00")
        with pytest.raises(RuntimeError, match="once"):
            each._look()
        assert each._timer is not before
        each.close()
        before.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("days", [-3650, -1, 1, 3650])
def test_a_clock_that_is_set_by_days_is_believed(days: int) -> None:
    begin = at("2026-01-01 02:59:50")
    schedule = Schedule("0 3 * * *", begin, UTC)
    jumped = begin + days * 24 * HOUR
    assert not schedule.is_due(jumped)
    assert schedule.next == jumped + 10
    assert schedule.is_due(jumped + 20)


@pytest.mark.parametrize(
    "wrong", ["61 * * * *", "* * *", "every day", "0 0 31 2 *", "", "* * * * * * *", "@often"]
)
def test_a_wrong_expression_is_a_clear_error(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require(wrong, "--cron-restart")
    assert caught.value.message.startswith(f"--cron-restart: {wrong!r}")
    assert "crontab" in (caught.value.hint or "")


def test_without_cronsim_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="cronsim") as missing:
        require("* * * * *")
    assert "rrdispatch[cron]" in (missing.value.hint or "")
    require(None)


def test_the_local_zone_has_its_rules(tmp_path: Path) -> None:
    zone()
    assert local_zone({"TZ": BERLIN}) == local_zone({"TZ": f":{BERLIN}"}) == ZoneInfo(BERLIN)
    assert local_zone({}, tmp_path) == UTC, "a container without one"
    assert local_zone({"TZ": "CET-1CEST"}).utcoffset(None) is not None


def test_run_says_it_before_anything_starts(tmp_path: Path) -> None:
    app(tmp_path)
    words = rrdispatch_command("run", "app:serve", "--cron-restart", "0 25 * * *")
    with Server(words, cwd=tmp_path) as server:
        assert server.wait(60) == 2
        server.output.wait(r"error: --cron-restart: '0 25 \* \* \*'", 0)


def test_a_service_reloads_at_its_hour(tmp_path: Path) -> None:
    service = Service("app:serve", "-i", "1", "--cron-restart", "*/5 * * * * *", cwd=app(tmp_path))
    with service:
        service.output.wait(r"reload: it is time \(\*/5 \* \* \* \* \*\)", 60.0)
        service.output.wait("reloaded in", 60.0)


def test_at_its_hour_by_a_clock_that_is_set_and_never_two_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [at("2026-01-01 02:00")]
    monkeypatch.setattr(cron, "LOOK", 0.05)
    monkeypatch.setitem(os.environ, "TZ", "UTC")
    made = cron.Cron.__init__
    monkeypatch.setattr(cron.Cron, "__init__", lambda *a: made(*a, wall=lambda: clock[0]))

    async def main() -> None:
        folder = app(tmp_path)
        async with running("app:serve", folder, cron_restart="0 3 * * *", probation=0.0) as service:
            before = service.pids()
            clock[0] = at("2026-01-01 03:00:00")
            await service.until("cron", reload=True)
            await service.until("reloaded")
            assert not before.items() & service.pids().items()
            service.supervisor.reload(probation=60.0)
            mark = service.mark()
            clock[0] = at("2026-01-02 02:59:59")  # set by days: believed
            beside = service.supervisor._beside
            assert beside is not None
            assert beside._cron is not None
            schedule = beside._cron._schedule
            await asyncio.to_thread(wait_until, lambda: schedule._seen == clock[0], LIMIT)
            clock[0] = at("2026-01-02 03:00:00")
            told = await service.until("cron", after=mark)
            assert told["reload"] is False
            assert "another operation" in told["message"]

    asyncio.run(main())

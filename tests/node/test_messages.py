"""Messages: large ones, many of them, to somebody who does not read, and the last ones."""

from __future__ import annotations

import os
import signal

import pytest

from tests.harness.readable import readable
from tests.harness.servers import wait_until
from tests.node.script import WITHIN, Script


def test_large_both_ways() -> None:
    with Script("talk.py", "large") as script:
        assert script.ended() == 0
        (sent,), (back,) = script.of("sent"), script.of("back")
    assert sent["told"] is False  # more waits than its reader has had time for
    assert back["digest"] == sent["digest"]
    assert back["length"] > 2_000_000


def test_a_flood_both_ways_keeps_its_order() -> None:
    with Script("talk.py", "flood") as script:
        assert script.ended() == 0
        assert [line["ordered"] for line in script.of("flood")] == [True]


def test_nobody_waits_for_a_worker_that_does_not_read() -> None:
    with Script("talk.py", "deaf") as script:
        assert script.ended() == 0
        (deaf,) = script.of("deaf")
        assert script.of("heard")
        ends = [(line["code"], line["signal"]) for line in script.of("exit")]
    assert deaf["last"] is False
    assert sorted(ends, key=str) == [(0, None), (None, "SIGKILL")]


def test_what_a_worker_said_before_its_end_is_heard_before_it() -> None:
    with Script("talk.py", "last-words") as script:
        assert script.ended() == 0
        said = script.said()
    assert [line["number"][0] for line in said[:-2]] == list(range(1000))
    assert said[-2] == {"event": "disconnect"}
    assert said[-1] == {"event": "exit", "code": 5, "signal": None}


def test_so_where_all_of_it_comes_at_once() -> None:
    """The primary was stopped meanwhile: words, end of the messages, end of the process."""
    with Script("talk.py", "at-once") as script:
        wait_until(lambda: bool(script.of("pid")), WITHIN)
        worker = script.of("pid")[0]["pid"]
        script.send_signal(signal.SIGSTOP)
        pidfd = os.pidfd_open(worker)
        os.kill(worker, signal.SIGUSR1)
        # Readable when its last thread has ended; a zombie it is before.
        assert readable(pidfd, WITHIN)
        os.close(pidfd)
        script.send_signal(signal.SIGCONT)
        assert script.ended() == 0
        events = [line["event"] for line in script.said()]
    assert events == ["pid", *["word"] * 100, "disconnect", "exit"]


@pytest.mark.parametrize("scenario", ["not-json"])
def test_what_json_cannot_say_is_refused_at_once(scenario: str) -> None:
    with Script("talk.py", scenario) as script:
        assert script.ended() == 0
        assert script.of("refused")

"""What is seen: cells, bars and styles, made of rows. Pure; knows no terminal and no textual.

A state is told by a mark and a word; its colour only repeats that. Cyan, yellow and red are told
apart by those who mix up red and green.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rrdispatch.cli.table import Column, plain, shown_time
from rrdispatch.monit.live import Seen

GOOD, BUSY, BAD, IDLE = "cyan", "yellow", "bold red", "none"
STATES = {
    "online": ("●", GOOD), "ready": ("●", GOOD),
    "launching": ("…", BUSY), "starting": ("…", BUSY), "reloading": ("…", BUSY),
    "stopping": ("…", BUSY), "draining": ("…", BUSY), "parked": ("…", BUSY), "asking": ("…", BUSY),
    "degraded": ("!", BUSY), "stalled": ("!", BUSY),
    "stopped": ("○", IDLE),
    "errored": ("x", BAD), "killed": ("x", BAD), "not answering": ("?", BAD),
}  # fmt: skip
LEVELS = "▁▂▃▄▅▆▇█"

APPS = (
    Column("id", "id", right=True, drop=5),
    Column("name", "name"),
    Column("status", "status"),
    Column("workers", "workers", right=True),
    Column("restarts", "↺", right=True, drop=4),
    Column("uptime", "up", right=True, drop=6),
    Column("cpu", "cpu", right=True),
    Column("memory", "mem", right=True, drop=1),
    Column("connections", "conns", right=True, drop=2),
    Column("rate", "conn/s", right=True),
    Column("pending", "pend", right=True, drop=3),
)
WORKERS = (
    Column("slot", "slot", right=True),
    Column("pid", "pid", right=True, drop=3),
    Column("generation", "gen", right=True, drop=5),
    Column("status", "state"),
    Column("restarts", "↺", right=True, drop=4),
    Column("uptime", "up", right=True, drop=6),
    Column("cpu", "cpu", right=True),
    Column("memory", "mem", right=True, drop=1),
    Column("connections", "conns", right=True),
    Column("pending", "pend", right=True, drop=2),
    Column("share", "split", right=True),
)
# So wide is every column at least: nothing jumps when a number gets another digit.
ROOM = {
    "id": "00", "name": "web", "status": "● reloading", "workers": "16/16", "restarts": "0",
    "uptime": "59m", "cpu": "100%", "memory": "999mb", "connections": "0000", "rate": "00000",
    "pending": "000", "slot": "0", "pid": "000000", "generation": "0", "share": "100%",
}  # fmt: skip


def status(text: str) -> str:
    """With its mark."""
    return f"{STATES.get(text, ('…', BUSY))[0]} {text}"


def style(text: str) -> str:
    return STATES.get(text, ("…", BUSY))[1]


def app_cells(seen: Seen) -> dict[str, str]:
    row = seen.row
    cells = {
        "id": "-" if row["id"] is None else str(row["id"]),
        "name": plain(row["name"]),
        "status": status(row["status"]),
    }
    if row["primary_pid"] is None:
        return {**{column.key: "-" for column in APPS}, **cells}
    told = row["status"] != "not answering"
    return {
        **cells,
        "workers": f"{row['serving']}/{row['instances']}",
        "restarts": str(row["restarts"]),
        "uptime": shown_time(row["uptime"]),
        "cpu": f"{row['cpu']:.0f}%",
        "memory": short_bytes(row["memory"]),
        "connections": str(row["connections"]) if told else "?",
        "rate": f"{row['connections_per_second']:.0f}" if told else "?",
        "pending": str(row["pending"]) if told else "?",
    }


def worker_cells(seen: Seen, worker: Mapping[str, Any]) -> dict[str, str]:
    told = seen.row["status"] != "not answering"
    share = shares(seen).get(worker["id"])
    return {
        "slot": str(worker["slot"]),
        "pid": str(worker["pid"]),
        "generation": str(worker["generation"]),
        "status": status(worker_state(worker)),
        "restarts": str(worker["restarts"]),
        "uptime": shown_time(worker["uptime"]),
        "cpu": f"{worker['cpu']:.0f}%",
        "memory": short_bytes(worker["memory"]),
        "connections": str(worker["inflight"]) if told else "?",
        "pending": str(worker["pending"]) if told else "?",
        "share": "-" if share is None else percent(share),
    }


def worker_state(worker: Mapping[str, Any]) -> str:
    stalled = worker["state"] == "ready" and worker.get("stalled")
    return "stalled" if stalled else str(worker["state"])


def short_bytes(count: float) -> str:
    """Three digits are enough for a glance."""
    for unit in ("b", "kb", "mb"):
        if count < 1000:
            return f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}gb" if count < 100 else f"{count:.0f}gb"


def percent(part: float) -> str:
    """Of many workers each has less than one in a hundred."""
    return f"{100 * part:.1f}%" if 0 < part < 0.00995 else f"{100 * part:.0f}%"


def shares(seen: Seen) -> dict[int, float]:
    """What part of the connections each worker took of late; nothing if there were none."""
    total = sum(seen.taken.values())
    return {worker: count / total for worker, count in seen.taken.items()} if total else {}


def bar(part: float, width: int) -> str:
    """A bar of ``part`` of the width, to half a character."""
    whole, half = divmod(round(max(0.0, min(1.0, part)) * width * 2), 2)
    return "━" * whole + "╸" * half


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest at the right; its height is that of the highest. Nothing at all is a blank."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    if most <= 0:
        return "▁" * len(shown)
    return "".join(LEVELS[min(7, int(8 * max(0.0, value) / most))] for value in shown)


def rate_line(seen: Seen, width: int) -> str:
    """``210/s ▁▂▃▅▇ most 400/s``, no longer than ``width``."""
    now = f"{seen.row['connections_per_second']:.0f}/s"
    for most in (f" highest {max(seen.rates, default=0.0):.0f}/s", ""):
        room = width - len(now) - len(most) - 2
        if room >= 8:
            line = sparkline(seen.rates, min(room, 120))
            return f"{now} {line}{most}" if line else now
    return now[:width]


def summary(all_seen: Sequence[Seen]) -> str:
    """All apps in a line."""
    rows = [seen.row for seen in all_seen]
    serving = sum(row["serving"] for row in rows)
    up = sum(row["status"] == "online" for row in rows)
    rate = sum(row["connections_per_second"] for row in rows)
    told = [
        f"{_count(len(rows), 'app')}, {up} online",
        _count(serving, "worker"),
        f"{rate:.0f} conn/s",
        f"cpu {sum(row['cpu'] for row in rows):.0f}%",
    ]
    return "   ".join(told)


def about(seen: Seen) -> str:
    """What else is to be said of an app: where it listens, or why it does not run."""
    row = seen.row
    if row["error"]:
        told = row["error"]
        hint = f" ({told['hint']})" if told.get("hint") else ""
        return plain(" ".join(f"{told.get('message', '')}{hint}".split()))
    if seen.hint and row["status"] in ("not answering", "killed"):
        return plain(seen.hint)
    if row["primary_pid"] is None:
        return ""
    where = ", ".join(row["listeners"]) or "no listener"
    return plain(f"{where}   generation {row['generation']}")


def heights(content: int, apps: int, workers: int, big_logs: bool = False) -> tuple[int, int, int]:
    """Lines for apps, workers and logs, each with its rule; rows beyond them are scrolled to."""
    if big_logs:
        top = max(3, min(apps + 2, content // 4))
        return top, 0, content - top
    logs = max(4, content // 4)
    left = content - logs
    ours, theirs = apps + 2, workers + 2
    if ours + theirs > left:
        ours = min(ours, max(4, left // 2, left - theirs))
        theirs = min(theirs, left - ours)
    return ours, theirs, content - ours - theirs


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""What ``list`` shows, without click: that alone would cost more than all the rest of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rrdispatch.cli import table
from rrdispatch.cli.table import Column, number, shown_bytes, shown_time
from rrdispatch.control import rows, selectors

COLUMNS = (
    number("id"),
    Column("name", "name"),
    Column("namespace", "namespace", drop=9),
    Column("mode", "mode", drop=7),
    number("pid", 5),
    number("uptime", 3),
    number("restarts", 2),
    Column("status", "status"),
    number("serving", 1),
    number("cpu", 4),
    number("memory", 4),
    number("connections", 6),
    number("connections_per_second", 8),
    number("pending", 8),
)


def run(texts: Sequence[str], as_json: bool, workers: bool) -> None:
    """The whole command."""
    found = collect(texts)
    if as_json:
        say(json.dumps(found))
        return
    show(found, workers)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def collect(texts: Sequence[str]) -> list[dict[str, Any]]:
    apps = (
        [target.definition for target in selectors.resolve(texts)] if texts else selectors.known()
    )
    for spoilt in {app.spoilt for app in apps} - {""}:
        from rrdispatch.cli.errors import warn

        warn(spoilt)
    return rows.collect(apps)


def show(found: Sequence[Mapping[str, Any]], workers: bool = False) -> None:
    if not found:
        say("no apps: rrdispatch start TARGET")
        return
    lines = []
    for row in found:
        lines.append(cells(row))
        if workers:
            lines += [worker_cells(row, worker) for worker in row["workers"]]
    say(table.render(COLUMNS, lines, table.width(), table.colourful()))


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """An app as it is shown."""
    alive = row["primary_pid"] is not None
    return {
        "id": "-" if row["id"] is None else str(row["id"]),
        "name": row["name"],
        "namespace": row["namespace"],
        "mode": row["mode"],
        "pid": str(row["primary_pid"]) if alive else "-",
        "uptime": shown_time(row["uptime"]) if alive else "-",
        "restarts": str(row["restarts"]),
        "status": row["status"],
        "serving": f"{row['serving']}/{row['instances']}" if alive else "-",
        "cpu": f"{row['cpu']:.0f}%" if alive else "-",
        "memory": shown_bytes(row["memory"]) if alive else "-",
        "connections": str(row["connections"]) if alive else "-",
        "connections_per_second": f"{row['connections_per_second']:.0f}" if alive else "-",
        "pending": str(row["pending"]) if alive else "-",
    }


def worker_cells(row: Mapping[str, Any], worker: Mapping[str, Any]) -> dict[str, str]:
    """One worker of an app."""
    return {
        **worker_figures(worker),
        "id": "",
        "name": f"{row['name']}:{worker['slot']}",
        "namespace": "",
        "mode": "worker",
        "status": worker["state"],
        "serving": "",
        "connections_per_second": "",
    }


def worker_figures(worker: Mapping[str, Any]) -> dict[str, str]:
    """What `list --workers` and `show` tell of a worker, as it is shown."""
    return {
        "pid": str(worker["pid"]),
        "uptime": shown_time(worker["uptime"]),
        "restarts": str(worker["restarts"]),
        "cpu": f"{worker['cpu']:.0f}%",
        "memory": shown_bytes(worker["memory"]),
        "connections": str(worker["inflight"]),
        "pending": str(worker["pending"]),
    }

"""``rrdispatch show``: everything about an app."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from rrdispatch.cli import table
from rrdispatch.cli.errors import warn
from rrdispatch.cli.facts import facts, shares
from rrdispatch.cli.listing import worker_figures
from rrdispatch.cli.table import Column, number, plain, shown_bytes, shown_time
from rrdispatch.control import selectors as chosen

COLUMNS = (
    number("slot"),
    number("pid"),
    Column("state", "state"),
    number("uptime", 1),
    number("restarts", 2),
    number("cpu", 3),
    number("memory", 3),
    number("connections", 4),
    number("share", 5),
    Column("exit", "last exit", drop=6),
)


@click.command("show")
@click.argument("selector")
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
@click.option("--show-secrets", is_flag=True, help="Also what looks like one.")
def command(selector: str, as_json: bool, show_secrets: bool) -> None:
    """Show everything about an app: what runs, from where, how it does, how it ended and why."""
    targets = chosen.resolve([selector], slots=True)
    for spoilt in {target.definition.spoilt for target in targets} - {""}:
        warn(spoilt)
    found = [facts(target, show_secrets) for target in targets]
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        show(each)


def show(found: Mapping[str, Any]) -> None:
    lines = [*_what(found), *_how(found), *_then(found)]
    widest = max(len(title) for title, _ in lines)
    for title, text in lines:
        click.echo(f"{title.ljust(widest)}  {plain(text)}")
    if found["workers"]:
        part = shares(found["slots"])
        cells = [_cells(worker, found["slots"], part) for worker in found["workers"]]
        click.echo(table.render(COLUMNS, cells, table.width(), table.colourful()))


def _what(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", f"{found['name']} (id {found['id']}, namespace {found['namespace']})"
    yield "status", str(found["status"])
    yield "runs", " ".join(found["command"]) or f"{found['target']} ({found['mode']})"
    yield "folder", str(found["cwd"])
    if found["interpreter"]:
        venv = f" (virtualenv {found['virtualenv']})" if found["virtualenv"] else ""
        yield "interpreter", f"{found['interpreter']}{venv}"
    for key, value in found["settings"].items():
        yield f"  {key}", value if isinstance(value, str) else json.dumps(value)
    if found["timeouts"]:
        named = {key.removesuffix("_timeout"): value for key, value in found["timeouts"].items()}
        yield "timeouts", ", ".join(f"{key} {value:g} s" for key, value in named.items())


def _how(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not found["primary_pid"]:
        return
    yield "listens on", ", ".join(found["listeners"]) or "nothing"
    if found["status_address"]:
        yield "status port", f"{found['status_address']}: /ready, /live, /metrics"
    yield "workers", f"{found['serving']} of {found['instances']}, {found['policy']}"
    if found["cores"]:
        yield "cores", found["cores"]["why"]
    yield "up for", shown_time(found["uptime"])
    yield "generation", str(found["generation"]) + (" degraded" if found["degraded"] else "")
    pids = [f"primary {found['primary_pid']}", f"dispatcher {found['dispatcher_pid']}"]
    pids.append(f"logger {found['logger_pid']}")
    yield "processes", f"{', '.join(pids)}; dispatcher in {_language(found['dispatcher'])}"
    yield "version", str(found["version"])
    open_now, moved = found["connections"], found["moved"]
    yield "connections", f"{open_now} now, {found['accepted']} since the start, {moved} moved"
    yield "memory", shown_bytes(found["memory"])


def _language(kind: str) -> str:
    return {"c": "C", "python": "Python"}.get(kind, kind)


def _then(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "restarts", str(found["restarts"])
    for end in found["ends"]:
        yield f"  {_clock(end['time'])}", f"worker {end['slot']}: {end['reason']}"
    if found["error"]:
        yield "error", str(found["error"]["message"])
    if found["ended_at"]:
        yield "ended", _clock(found["ended_at"])
    paths = found["paths"]
    yield "paths", paths["folder"]
    if paths["config"]:
        yield "  settings", paths["config"]
    for path in dict.fromkeys(paths["logs"].values()):
        yield "  log", path
    for log, why in (found["unwritten"] or {}).items():
        yield "  not written", f"{log}: {why}; lines are dropped, and counted"
    yield "  its own words", paths["primary_log"]
    for place, line in enumerate(found["last_errors"]):
        yield "" if place else "last on stderr", line


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cells(
    worker: Mapping[str, Any], slots: list[Mapping[str, Any]], part: Mapping[int, float]
) -> dict[str, str]:
    slot = next((each for each in slots if each["slot"] == worker["slot"]), None)
    return {
        **worker_figures(worker),
        "slot": str(worker["slot"]),
        "state": worker["state"],
        "share": f"{part.get(worker['slot'], 0.0):.0f}%",
        "exit": str((slot or {}).get("last_exit") or "-"),
    }

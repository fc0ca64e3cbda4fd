"""``rrdispatch show``: everything about an app."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from rrdispatch.cli import table
from rrdispatch.cli.secrets import mask, without_password
from rrdispatch.cli.table import Column, plain, shown_bytes, shown_time
from rrdispatch.control import rows, statedir
from rrdispatch.control import selectors as chosen
from rrdispatch.control.ask import ask
from rrdispatch.control.definitions import Definition
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ControlError

COLUMNS = (
    Column("slot", "slot", right=True),
    Column("pid", "pid", right=True),
    Column("state", "state"),
    Column("uptime", "uptime", right=True, drop=1),
    Column("restarts", "↺", right=True, drop=2),
    Column("cpu", "cpu", right=True, drop=3),
    Column("memory", "mem", right=True, drop=3),
    Column("inflight", "conns", right=True, drop=4),
    Column("share", "share", right=True, drop=5),
    Column("exit", "last exit", drop=6),
)


@click.command("show")
@click.argument("selector")
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
@click.option("--show-secrets", is_flag=True, help="Also what looks like one.")
def command(selector: str, as_json: bool, show_secrets: bool) -> None:
    """Show everything about an app: command, folder, interpreter, listeners, workers, settings."""
    found = [facts(target, show_secrets) for target in chosen.resolve([selector], slots=True)]
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        show(each)


def facts(target: Target, show_secrets: bool) -> dict[str, Any]:
    """The row of ``list``, and more."""
    app = target.definition
    row = rows.collect([app])[0]
    if target.slot is not None:
        row["workers"] = [each for each in row["workers"] if each["slot"] == target.slot]
    folder = statedir.home() / app.name
    return {
        **row,
        **_asked(app, show_secrets),
        "settings": _settings(app, show_secrets),
        "started_at": app.started or None,
        "ended_at": app.ended or None,
        "paths": {"folder": str(folder), "primary_log": str(folder / statedir.OUTPUT)},
    }


def _asked(app: Definition, show_secrets: bool) -> dict[str, Any]:
    """What only its primary knows; of one that does not run, what a start would use."""
    names = ("policy", "dispatcher", "dispatcher_pid", "logger_pid", "slots")
    try:
        stats, launch = ask(app.name, "stats"), ask(app.name, "launch")
    except ControlError:
        told: dict[str, Any] = {
            "cwd": app.settings.get("cwd") or app.cwd,
            "interpreter": None,
            "command": [],
        }
        return {**dict.fromkeys(names), **told, "slots": []}
    argv = launch["argv"] if show_secrets else [without_password(each) for each in launch["argv"]]
    more = {"cwd": launch["cwd"], "interpreter": launch["python"], "command": argv}
    return {**{name: stats[name] for name in names}, **more}


def _settings(app: Definition, show_secrets: bool) -> dict[str, Any]:
    """Those that are no default."""
    from rrdispatch.settings import DEFAULTS

    usual = DEFAULTS.values()
    found = {k: v for k, v in app.settings.items() if k in usual and v != usual[k]}
    if show_secrets:
        return found
    if isinstance(found.get("env"), dict):
        found["env"] = {key: mask(key, str(value)) for key, value in found["env"].items()}
    return {key: _masked(key, value) for key, value in found.items()}


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_masked(key, each) for each in value]
    return mask(key, value) if isinstance(value, str) else value


def show(found: Mapping[str, Any]) -> None:
    lines = list(_lines(found))
    widest = max(len(title) for title, _ in lines)
    for title, text in lines:
        click.echo(f"{title.ljust(widest)}  {plain(text)}")
    if found["workers"]:
        cells = [_cells(worker, found["slots"]) for worker in found["workers"]]
        click.echo(table.render(COLUMNS, cells, table.width(), table.colourful()))


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", f"{found['name']} (id {found['id']}, namespace {found['namespace']})"
    yield "status", str(found["status"])
    yield "runs", " ".join(found["command"]) or f"{found['target']} ({found['mode']})"
    yield "folder", str(found["cwd"])
    if found["interpreter"]:
        yield "interpreter", found["interpreter"]
    if found["primary_pid"]:
        yield "listens on", ", ".join(found["listeners"]) or "nothing"
        yield "workers", f"{found['serving']} of {found['instances']}, {found['policy']}"
        yield "up for", shown_time(found["uptime"])
        yield "generation", str(found["generation"]) + (" degraded" if found["degraded"] else "")
        pids = [f"primary {found['primary_pid']}", f"dispatcher {found['dispatcher_pid']}"]
        yield "processes", ", ".join([*pids, f"logger {found['logger_pid']}"])
        yield "version", str(found["version"])
        yield "connections", f"{found['connections']} now, {found['accepted']} since the start"
        yield "memory", shown_bytes(found["memory"])
    if found["error"]:
        yield "error", str(found["error"]["message"])
    if found["ended_at"]:
        yield "ended", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["ended_at"]))
    for key, value in found["settings"].items():
        yield f"  {key}", value if isinstance(value, str) else json.dumps(value)
    yield "its words", found["paths"]["primary_log"]


def _cells(worker: Mapping[str, Any], slots: list[Mapping[str, Any]]) -> dict[str, str]:
    total = sum(slot["connections"] for slot in slots)
    slot = next((each for each in slots if each["slot"] == worker["slot"]), None)
    share = 100 * slot["connections"] / total if slot is not None and total else 0.0
    return {
        "slot": str(worker["slot"]),
        "pid": str(worker["pid"]),
        "state": worker["state"],
        "uptime": shown_time(worker["uptime"]),
        "restarts": str(worker["restarts"]),
        "cpu": f"{worker['cpu']:.0f}%",
        "memory": shown_bytes(worker["memory"]),
        "inflight": str(worker["inflight"]),
        "share": f"{share:.0f}%",
        "exit": str((slot or {}).get("last_exit") or "-"),
    }

"""``monit --plain``: the same once, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rrdispatch.cli.table import Column, fit
from rrdispatch.monit import shown
from rrdispatch.monit.live import Seen

GAP = 2
BAR = 24


def seen_of(row: dict[str, Any]) -> Seen:
    """The split is that of all connections since each worker's start."""
    taken = {worker["id"]: worker["connections"] for worker in row["workers"]}
    error = row["status"] == "not answering"
    hint = f"rrdispatch ping {row['name']}" if error else ""
    return Seen(row, taken=taken, hint=hint)


def lines(all_seen: Sequence[Seen], width: int) -> Iterator[str]:
    """Apps, then the workers of each."""
    yield shown.summary(all_seen)
    yield ""
    yield from _table(shown.APPS, [shown.app_cells(seen) for seen in all_seen], width)
    for seen in all_seen:
        yield ""
        yield from _app(seen, width)


def _app(seen: Seen, width: int) -> Iterator[str]:
    yield f"{seen.name}   {shown.about(seen)}".rstrip()
    workers = seen.row["workers"]
    if workers:
        cells = [shown.worker_cells(seen, worker) for worker in workers]
        shares = shown.shares(seen)
        most = max(shares.values(), default=0.0)
        bars = ["", *(shown.bar(shares.get(w["id"], 0.0) / (most or 1), BAR) for w in workers)]
        table = _table(shown.WORKERS, cells, width - BAR - GAP)
        yield from (f"{line}  {bar}".rstrip() for line, bar in zip(table, bars, strict=True))


def _table(
    columns: Sequence[Column], rows: Sequence[Mapping[str, str]], width: int
) -> Iterator[str]:
    heads = {column.key: column.title for column in columns}
    widths = fit(columns, rows, width, GAP)
    right = {column.key for column in columns if column.right}
    for row in (heads, *rows):
        cells = [
            row[key].rjust(size) if key in right else row[key].ljust(size)
            for key, size in widths.items()
        ]
        yield (" " * GAP).join(cells).rstrip()

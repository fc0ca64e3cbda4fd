"""CPU of the dispatching process per connection, latency at a low rate, and memory.

    python -m loadtests.bench [--rounds 25] [--workers 2 8 64] [--takers 2] [--json FILE]
                              [--against OLD.json]

A backlog of 1,000 connections is given out to workers that only take. All variants run interleaved
in one run; medians are told, with the ratio to the floor, ``accept4`` alone. The JSON is in the
format of ``loadtests.compare``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rrdispatch import Cluster

from .bench_parts import (
    ROOT,
    Dispatcher,
    Floor,
    Naive,
    Takers,
    children,
    closing_all,
    compile_helpers,
    pss_kib,
)
from .report import changes
from .results import Results, machine

BATCH = 16


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    variant: str
    workers: int
    microseconds: float
    ratio: float
    spread: float
    ratios: list[float]


def variants(workers: int, taker: Path, processes: int) -> dict[str, Naive | Dispatcher]:
    """The dispatching processes that are compared."""

    def takers() -> Takers:
        return Takers(taker, workers, min(workers, processes or workers))

    return {
        "C, one per message": Dispatcher("c", takers(), 1),
        "C, batches of 16": Dispatcher("c", takers(), BATCH),
        "Python (rrdispatch)": Dispatcher("python", takers(), 1),
        "Python (accept, send_fds)": Naive(takers()),
    }


def measure(options: argparse.Namespace, floor: Path, taker: Path) -> list[Row]:
    """Median CPU per connection of each variant and number of workers, in interleaved rounds."""
    runners: dict[tuple[str, int], Floor | Naive | Dispatcher] = {
        ("accept4 alone", 0): Floor(floor)
    }
    with closing_all(started := list(runners.values())):
        for workers in options.workers:
            for name, runner in variants(workers, taker, options.takers).items():
                runners[name, workers] = runner
                started.append(runner)
        used: dict[tuple[str, int], list[float]] = {key: [] for key in runners}
        for number in range(options.rounds + 1):
            for key, runner in runners.items():
                result = runner.run(options.backlog)
                if number:  # the first round warms up
                    used[key].append(result)
    return table(used)


NAMES = {  # as the comparison calls them
    "accept4 alone": "accept4 alone",
    "C, one per message": "rrdispatch",
    "C, batches of 16": "rrdispatch, batches of 16",
    "Python (rrdispatch)": "rrdispatch, Python dispatcher",
    "Python (accept, send_fds)": "uvicorn, naive turns",
}


def deep_backlog(said: Results, workers: int, rounds: int) -> None:
    """The same figures for a comparison; nothing without a C compiler."""
    if shutil.which("cc") is None:
        said.notes["deep backlog"] = "could not be measured: there is no C compiler"
        return
    options = argparse.Namespace(workers=[workers], rounds=rounds, backlog=1000, takers=2)
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(options, *compile_helpers(Path(directory)))
    for row in rows:
        said.add(NAMES[row.variant], "deep backlog: CPU", row.microseconds, "us")
        for ratio in row.ratios:
            said.add(NAMES[row.variant], "deep backlog: by accept4 alone", ratio, "x")


def table(used: dict[tuple[str, int], list[float]]) -> list[Row]:
    """Medians, the median of each round's ratio to its own floor, and the spread of the quartiles.

    A shared machine is faster in one second and slower in the next; a round's own floor is so too.
    """
    floors = used["accept4 alone", 0]
    rows = []
    for (name, workers), values in used.items():
        middle = statistics.median(values)
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (middle,) * 3
        ratios = [value / floor for value, floor in zip(values, floors, strict=True)]
        ratio = statistics.median(ratios)
        spread = (high - low) / middle
        rows.append(Row(name, workers, middle / 1000, ratio, spread, ratios))
    return rows


def latency(options: argparse.Namespace, taker: Path) -> dict[str, dict[str, float]]:
    """Microseconds from accept to taken and from connect to taken, one connection at a time."""
    found = {}
    for kind in ("c", "python"):
        dispatcher = Dispatcher(kind, Takers(taker, 4, 4), 1)
        with closing_all([dispatcher]):
            accept, connect = dispatcher.latencies(options.latencies, 0.002)
            memory = pss_kib(dispatcher.handle.pid)
        found[kind] = {
            **{f"accept_p{p}": percentile(accept, p) for p in (50, 90, 99)},
            **{f"connect_p{p}": percentile(connect, p) for p in (50, 90, 99)},
            "pss_kib": memory,
        }
    return found


def memory() -> dict[str, int]:
    """PSS in KiB of each process of a running service."""
    settings = {"cwd": str(ROOT / "examples"), "access_log": False}
    with Cluster("hello:app", bind="127.0.0.1:0", workers=2, **settings) as cluster:
        stats = cluster.stats()
        found = {"primary": stats["primary_pid"], "dispatcher": stats["dispatcher_pid"]}
        found |= {f"worker {worker['slot']}": worker["pid"] for worker in stats["workers"]}
        others = set(children(stats["primary_pid"])) - set(found.values())
        found |= {f"other {pid}": pid for pid in others}
        return {name: pss_kib(pid) for name, pid in found.items()}


def percentile(values: list[int], which: int) -> float:
    """In microseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * which // 100)] / 1000


def show(rows: list[Row], slow: dict[str, dict[str, float]], used: dict[str, int]) -> None:
    """The tables on stdout."""
    print(f"{'dispatching process':28}{'workers':>8}{'us/conn':>9}{'x floor':>9}{'spread':>8}")
    for row in rows:
        workers = str(row.workers or "-")
        print(
            f"{row.variant:28}{workers:>8}{row.microseconds:9.2f}{row.ratio:9.2f}{row.spread:8.0%}"
        )
    print()
    print("one connection at a time, us: p50 / p90 / p99 (with the wake-up of a sleeping worker)")
    for kind, values in slow.items():
        accept = " / ".join(f"{values[f'accept_p{p}']:.0f}" for p in (50, 90, 99))
        connect = " / ".join(f"{values[f'connect_p{p}']:.0f}" for p in (50, 90, 99))
        print(
            f"  {kind:8} accept to taken {accept}, connect to taken {connect}; "
            f"dispatcher PSS {values['pss_kib'] / 1024:.1f} MiB"
        )
    print()
    print("PSS of a service with two workers that answer hello, MiB")
    for name, kib in used.items():
        print(f"  {name:24}{kib / 1024:8.1f}")


def results(rows: list[Row], slow: dict[str, dict[str, float]], used: dict[str, int]) -> Results:
    """In the format of the comparison; CPU as a ratio to the floor of its own round."""
    said = Results("bench", " ".join(["python -m loadtests.bench", *sys.argv[1:]]))
    said.about = machine()
    for row in rows:
        for ratio in row.ratios:
            said.add(row.variant, f"{row.workers} workers: CPU per connection", ratio, "x accept4")
        said.add(row.variant, f"{row.workers} workers: microseconds", row.microseconds, "us", "")
    for kind, values in slow.items():
        for name, value in values.items():
            said.add(f"{kind} dispatcher", name, value, "KiB" if name == "pss_kib" else "us", "")
    for name, kib in used.items():
        said.add("a service with two workers", f"PSS of {name.split(' ')[0]}", kib, "KiB", "")
    return said


def main() -> None:
    """Run, show, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--backlog", type=int, default=1000)
    parser.add_argument(
        "--takers", type=int, default=2, help="processes of the workers; 0 = one each"
    )
    parser.add_argument("--latencies", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path, metavar="OLD.json", help="what changed since")
    options = parser.parse_args()
    old = Results.read(options.against) if options.against else None
    with tempfile.TemporaryDirectory() as directory:
        floor, taker = compile_helpers(Path(directory))
        rows = measure(options, floor, taker)
        slow = latency(options, taker)
    used = memory()
    show(rows, slow, used)
    said = results(rows, slow, used)
    if options.json:
        options.json.write_text(said.to_json(), encoding="utf-8")
    if old is not None:
        print("", *changes(said, old), sep="\n")


if __name__ == "__main__":
    main()

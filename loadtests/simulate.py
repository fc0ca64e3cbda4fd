"""What each policy makes of the same arrivals, from 4 to 256 workers: a discrete-event simulation.

    python -m loadtests.simulate [--quick] [--workers 4 16] [--load 0.3 0.6] [--service pareto]
                                 [--threads 0] [--keep 10] [--markdown FILE] [--plot FILE.png]
    python -m loadtests.simulate --measured [--workers 2 4 8] [--load 0.6]

The second form runs the real thing beside the model, with the same arrivals and service times. What
the figures mean, and where they end: docs/policies.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .sim_engine import Kind, Policy, Record, simulate
from .sim_ours import Ours
from .sim_policies import Hash, Node, Racing, Textbook
from .sim_report import Row, markdown_table, plot, plotter, summarise, text_table
from .sim_theory import mg1_waiting, mmc_waiting
from .sim_work import MS, SERVICES, Work, stretched

Made = Callable[[], Policy]


def policies(options: argparse.Namespace) -> dict[str, Made]:
    """All that are compared, by name."""

    def ours(name: str) -> Made:
        return lambda: Ours(
            name,
            stall_timeout=options.stall_timeout * MS,
            band=options.band,
            queue_limit=options.queue_limit,
        )

    found: dict[str, Made] = {
        name: ours(name) for name in ("round-robin", "strict", "least-connections")
    }
    others: list[Made] = [Textbook, Hash, lambda: Racing(options.bias), Node]
    found |= {made().name: made for made in others}
    return {name: made for name, made in found.items() if name in (options.policy or found)}


def work_of(options: argparse.Namespace, workers: int, load: float, seed: int) -> Work:
    """The stream of one round: the same for every policy."""
    kind = Kind(options.threads)
    # What keeps a thread: with threads the waiting for others, too.
    service = stretched(SERVICES[options.service](), options.stretch)
    awaited = options.awaits * MS if options.threads else 0.0
    rate = load * workers * kind.servers / (service.mean + awaited) / options.keep
    requests = max(options.requests, options.requests // 50 * workers)
    return Work(
        service,
        rate,
        max(1, requests // options.keep),
        seed=seed,
        keep=options.keep,
        pause=options.pause * MS,
        awaits=options.awaits * MS,
        sources=options.sources,
    )


def compare(options: argparse.Namespace, workers: int, load: float) -> list[Row]:
    """All policies at one load."""
    rounds = range(options.seed, options.seed + options.rounds)
    works = [work_of(options, workers, load, seed) for seed in rounds]
    rows = []
    for name, made in policies(options).items():
        records: list[Record] = [
            simulate(work, workers, Kind(options.threads), made()) for work in works
        ]
        rows.append(summarise(name, load, records))
    return rows


def theory(options: argparse.Namespace, workers: int, load: float) -> str:
    """What is known without a simulation."""
    work = work_of(options, workers, load, options.seed)
    if options.keep > 1 or options.awaits or options.threads > 1:
        return ""
    known = []
    if options.service == "exponential" and options.threads:
        ideal = mmc_waiting(work.rate, work.service.mean, workers)
        known.append(f"racing is M/M/{workers}: {ideal / MS:.2f}")
    alone = mg1_waiting(work.rate / workers, work.service.mean, work.service.second)
    known.append(f"hash is M/G/1 per worker: {alone / MS:.2f}")
    return "closed forms, mean ms: " + "; ".join(known)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--quick", action="store_true", help="few requests, 4 and 16 workers: some seconds")
    add("--workers", type=int, nargs="+")
    add("--load", type=float, nargs="+", help="share of the workers' time that is asked for")
    add("--policy", nargs="+", help="only these; 'textbook turn', hash, racing, node, or ours")
    add("--service", choices=list(SERVICES), default="mixed", help="blocking time of a request")
    add("--threads", type=int, default=1, help="of each worker; 0: an event loop")
    add("--awaits", type=float, default=0.0, metavar="MS", help="then awaited, on average")
    add("--keep", type=int, default=1, help="requests per connection")
    add("--pause", type=float, default=100.0, metavar="MS", help="between them, on average")
    add("--sources", type=int, default=1_000_000, help="clients that a hash can tell apart")
    add("--bias", type=float, default=1.0, help="racing: wake-ups that go to the first in line")
    add("--stall-timeout", type=float, default=10.0, metavar="MS")
    add("--band", type=int, default=8)
    add("--queue-limit", type=int, default=32)
    add("--requests", type=int, help="per round; in proportion with more than 50 workers")
    add("--rounds", type=int)
    add("--seed", type=int, default=1)
    add("--markdown", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="FILE.png", help="p99 over load")
    add("--measured", action="store_true", help="the real thing beside the model")
    add("--stretch", type=float, default=1.0, help="times by which services are longer")
    add("--seconds", type=float, default=10.0, help="of each measured run")
    return made


def filled(options: argparse.Namespace) -> argparse.Namespace:
    """What was not said, by what is run."""
    few = options.quick or options.measured
    options.workers = options.workers or (
        [4, 16] if options.quick else [2, 4, 8] if options.measured else [4, 16, 64, 256]
    )
    options.load = options.load or ([0.3, 0.6] if few else [0.3, 0.6, 0.8, 0.9])
    options.requests = options.requests or (40_000 if few else 100_000)
    options.rounds = options.rounds or (1 if few else 2)
    return options


def run(options: argparse.Namespace, command: str) -> list[Row]:
    """Every table, as soon as it is there."""
    rows: list[Row] = []
    pages = [f"`{command}`, waiting in ms"]
    for workers in options.workers:
        for load in options.load:
            begin = time.perf_counter()
            found = compare(options, workers, load)
            rows += found
            title = f"{workers} workers, load {load:g}"
            known = theory(options, workers, load)
            print(f"\n{title} ({time.perf_counter() - begin:.0f} s)\n{text_table(found)}")
            print(known)
            sys.stdout.flush()
            pages += [f"{title}:", markdown_table(found), *([known] if known else [])]
    if options.markdown:
        options.markdown.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, show, and write what was asked for."""
    said = list(sys.argv[1:] if arguments is None else arguments)
    options = filled(parser().parse_args(said))
    if not policies(options):
        raise SystemExit(f"no such policy: {' '.join(options.policy)}")
    if options.measured:
        from .sim_measured import side_by_side

        side_by_side(options)
        return
    pyplot = plotter() if options.plot else None
    command = shlex.join(["python", "-m", "loadtests.simulate", *said])
    rows = run(options, command)
    if options.plot:
        plot(pyplot, rows, command, options.plot)


if __name__ == "__main__":
    main()

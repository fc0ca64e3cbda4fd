"""rrdispatch beside what one would use instead: same app, number of workers and generator.

    python -m loadtests.compare [--quick | --full [--minutes N]] [--only NAME ...]
                                [--against OLD.json]

Rounds are interleaved and the order in each is shuffled; medians are told with least and most. CPU
per request is that of all processes of a contender, so that a busy machine does not decide. What is
not installed is left out, with the line that installs it. No failed request is tried again.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import fast
from .answers import OURS
from .bad_days import BAD_DAYS, BadDay
from .bench import deep_backlog
from .contenders import CONTENDERS, Contender, chosen
from .measures import FULL, GOOD_DAY, LEAST, QUICK, Measuring, Size
from .report import markdown, summary, write_report
from .results import Results, machine
from .running import Running, all_files

QUICK_S = 150.0  # what would probably take longer is not begun; then the report is made
REPORT_S = 30.0  # of the minutes that are given
UNKNOWN_S = 20.0  # so long at most may take what nobody was put through yet
MOST_WORKERS = 64
# Seconds of a contender, as two idle cores need them: in a round and on all bad days, whatever the
# size (starting, ending, what lasts as long as it lasts), and by the share of the full size.
ROUND_S, ROUND_MORE_S, DAYS_S, DAYS_MORE_S, OFTEN_S = 3.5, 42.0, 58.0, 50.0, 10.0


@dataclass
class Comparison:
    """One run: who, in how many rounds, for how long, and what was found."""

    contenders: list[Contender]
    workers: int
    rounds: int
    size: Size
    bad_days: list[BadDay]
    directory: Path
    seed: int
    results: Results
    limit_s: float = float("inf")
    backlogs: int = 0  # rounds of the dispatching process alone
    quick: bool = False
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    took: dict[str, float] = field(default_factory=dict)  # the longest of each kind

    def run(self) -> None:
        """A round of good days, the bad days, the other rounds: as many as fit the time."""
        order = random.Random(self.seed)
        self._round(1, order)
        took = time.monotonic() - self.began
        if self.backlogs and self._left() > took / 4:
            say(f"the dispatching process alone, from a deep backlog: {self.backlogs} rounds")
            deep_backlog(self.results, self.workers, self.backlogs)
        for days in self._trials():
            for contender in self._shuffled(order):
                able = [day for day in days if day.possible(contender)]
                if able:
                    title = ", ".join(day.name for day in able)
                    self._on(contender, title, [day.run for day in able], self.size)
        rounds = self.results.about["rounds"] = 1
        while rounds < self.rounds and self._left() > took:
            rounds += 1
            self.results.about["rounds"] = rounds
            more = 0.0 if self.quick else OFTEN_S * len(self.contenders)
            self._round(rounds, order, often=not self.quick and self._left() > took + more)

    def _round(self, number: int, order: random.Random, often: bool = False) -> None:
        """Who is asked in it meets the same arrivals; those of another round are others."""
        size = replace(self.size, seed=self.seed + number)
        parts = list(GOOD_DAY.values())
        parts += [day.run for day in self.bad_days if often and day.often]
        for contender in self._shuffled(order):
            self._on(contender, f"round {number} of {self.rounds}", parts, size)

    def _shuffled(self, order: random.Random) -> list[Contender]:
        """Ours first if the time may be up before all had their turn: else beside whom?"""
        found = order.sample(self.contenders, len(self.contenders))
        return sorted(found, key=lambda each: self.quick and each.name != OURS)

    def _trials(self) -> list[list[BadDay]]:
        """Each bad day on a server of its own; where time is short some follow each other."""
        if self.limit_s == float("inf"):
            return [[day] for day in self.bad_days]
        return together(self.bad_days)

    def _left(self) -> float:
        return self.limit_s - (time.monotonic() - self.began)

    @property
    def total(self) -> int:
        able = sum(
            any(day.possible(each) for day in days)
            for days in self._trials()
            for each in self.contenders
        )
        return self.rounds * len(self.contenders) + able

    def _on(
        self, contender: Contender, title: str, parts: list[Callable[[Measuring], None]], size: Size
    ) -> None:
        """One that cannot be started or measured is told, and the others go on."""
        self.done += 1
        began = time.monotonic()
        head = f"[{self.done}/{self.total}] {title}: {contender.name}"
        kind = title.partition(" ")[0]
        guess = min(UNKNOWN_S, max(self.took.values(), default=0.0))
        if self._left() < self.took.get(kind, guess):
            self.results.notes["cut short"] = f"the time was up at {head}"
            say(f"{head}: left out, the time is up")
            return
        left, failed = list(parts), False
        while left:
            why = self._some(contender, left, size)
            if why:
                failed = True
                self.results.notes[f"{contender.name}, {title}"] = f"could not be measured: {why}"
                say(f"{head}: could not be measured: {why}")
        took = time.monotonic() - began
        if not failed:
            self.took[kind] = max(took, self.took.get(kind, 0.0))
        say(f"{head}: {took:.1f} s")

    def _some(
        self, contender: Contender, left: list[Callable[[Measuring], None]], size: Size
    ) -> str:
        """As many as one server survives; or why one was not measured. Others get a new server."""
        started = False
        try:
            with Running(
                contender, self.directory / f"{self.done}.{len(left)}", self.workers
            ) as running:
                started = True
                while left:
                    left.pop(0)(Measuring(running, self.results, size))
        except (OSError, RuntimeError, TimeoutError, AssertionError) as error:
            if not started:
                left.clear()
            return (str(error).splitlines() or [type(error).__name__])[0][:300]
        return ""


def say(text: str) -> None:
    """Progress: on stderr, so that stdout is the table."""
    print(text, file=sys.stderr, flush=True)


def present(contenders: list[Contender], results: Results) -> list[Contender]:
    """Those that can be started here; the others are told how to be had."""
    found = []
    for each in contenders:
        if each.missing:
            results.skipped[each.name] = each.missing
            say(f"skipped: {each.name}; to have it: {each.missing}")
        else:
            found.append(each)
            results.versions[each.name] = each.version
            if each.note:
                results.notes[each.name] = each.note
    return found


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="some contenders, under three minutes")
    size.add_argument("--full", action="store_true", help="all, at length: some three hours")
    parser.add_argument("--minutes", type=float, metavar="N", help="of a full run: all is shorter")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="or parts of names")
    parser.add_argument("--days", nargs="*", metavar="DAY", choices=[d.name for d in BAD_DAYS],
                        help="bad days: " + ", ".join(each.name for each in BAD_DAYS))  # fmt: skip
    parser.add_argument("--rounds", type=int, help="2 if quick or with --minutes, else 5")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, help="of each busy measurement")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of order and arrivals")
    parser.add_argument("--output", type=Path, default=Path("build/comparison"), metavar="DIR")
    parser.add_argument("--against", type=Path, metavar="OLD.json", help="what got slower since")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables, without figures")
    parser.add_argument("--list", action="store_true", help="the contenders and what they need")
    options = parser.parse_args(words)
    if not 2 <= options.workers <= MOST_WORKERS or (options.rounds or 1) < 1:
        parser.error(f"--workers: 2 to {MOST_WORKERS}; --rounds: at least 1")
    if options.minutes is not None and (not options.full or options.minutes <= 1):
        parser.error("--minutes: more than 1, and with --full")
    return options


def together(days: list[BadDay]) -> list[list[BadDay]]:
    """Those that leave a server as it was follow each other on one; each that spoils it ends it."""
    groups: list[list[BadDay]] = [[]]
    for day in sorted(days, key=lambda each: each.spoils):
        groups[-1].append(day)
        if day.spoils:
            groups.append([])
    return [group for group in groups if group]


def comparison(options: argparse.Namespace, words: list[str], directory: Path) -> Comparison:
    command = f"python -m loadtests.compare {shlex.join(words)}".rstrip()
    if "--seed" not in words:
        command += f" --seed {options.seed}"
    results = Results("compare", command, about=machine())
    quick = not options.full
    days = [each for each in BAD_DAYS if each.quick or not quick]
    if options.days is not None:
        days = [each for each in BAD_DAYS if each.name in options.days]
    rounds = options.rounds or (2 if quick or options.minutes else 5)
    who = present(chosen(options.only, quick), results)
    limit = QUICK_S if options.quick else float("inf")
    if options.minutes:
        limit = 60 * options.minutes - REPORT_S
    size = sized(options, limit, rounds, len(who), days)
    results.about |= {"workers": options.workers, "size": _size(options), "lengths": size.told}
    about = f"{len(who)} contenders; bad days: {', '.join(each.name for each in days) or 'none'}"
    results.about |= {"minutes": options.minutes, "who": about}
    results.about["generator"] = "C" if fast.program() else "Python: there is no C compiler"
    backlogs = 0 if options.only else 5 if quick else 25
    return Comparison(
        who, options.workers, rounds, size, days, directory, options.seed, results, limit, backlogs,
        options.quick,
    )  # fmt: skip


def sized(
    options: argparse.Namespace, limit_s: float, rounds: int, contenders: int, days: list[BadDay]
) -> Size:
    """Of a full run in so many minutes all tests are shorter, by the same for all contenders."""
    size = FULL if options.full else QUICK
    if options.minutes:
        part = len(days) / len(BAD_DAYS)
        fixed = rounds * ROUND_S + (rounds - 1) * OFTEN_S + part * DAYS_S
        more = rounds * ROUND_MORE_S + part * DAYS_MORE_S
        size = FULL.shortened(min(1.0, (limit_s / max(1, contenders) - fixed) / more), LEAST)
    if options.seconds:
        size = Size(options.seconds, 2 * options.seconds, size.connections, bad_s=options.seconds)
    return size


def _size(options: argparse.Namespace) -> str:
    return "full" if options.full else "quick"


def listing() -> None:
    for each in CONTENDERS:
        print(f"{each.name:32}{each.version or 'not here: ' + each.get}")


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    options = arguments(words)
    if options.list:
        listing()
        return 0
    all_files()
    old = Results.read(options.against) if options.against else None
    with tempfile.TemporaryDirectory(prefix="rrdispatch-compare-") as directory:
        run = comparison(options, words, Path(directory))
        try:
            run.run()
        except KeyboardInterrupt:
            run.results.notes["cut short"] = "interrupted"
    run.results.about["seconds"] = round(time.monotonic() - run.began)
    page = write_report(run.results, options.output, old)
    if options.markdown:
        options.markdown.write_text(markdown(run.results, {}, None), encoding="utf-8")
    print(summary(run.results, old))
    print(f"\nreport: {page}")
    return 0 if run.results.rows else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LookupError, OSError, ValueError) as problem:
        sys.exit(f"compare: {problem}")

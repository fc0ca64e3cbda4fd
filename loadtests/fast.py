"""The C load generator (``csrc/bench/load.c``), for rates that an interpreted one cannot reach.

    python -m loadtests.fast 127.0.0.1:8000 [--mode closed|kept|open] [--rate 5000] [--seconds 5]
    python -m loadtests.fast --limit    # what it can do itself: against a server that does nothing

One thread. It writes nothing while it runs: the records come at its end. ``generator.py`` does
what it cannot: slow requests in between, idle and slow clients, answers looked at meanwhile.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.harness.ports import free_port
from tests.harness.records import EOF, OK, REFUSED, RESET, STATUS, TIMEOUT, Plan, Record, quantile

from . import figures

SOURCE = Path(__file__).resolve().parents[1] / "csrc" / "bench" / "load.c"
MODES = ("closed", "kept", "open")
OUTCOMES = (OK, REFUSED, RESET, EOF, TIMEOUT, STATUS)
HEAD = struct.Struct("=QQ")
RECORD = struct.Struct("=QQQQIIHHBBxx")
SPARE_S = 30.0  # beyond its seconds and its patience: something is wrong


@dataclass(frozen=True)
class Run:
    """What one run found. ``busy``: the generator's share of a core; near 1 it is the limit."""

    records: list[Record]
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return sum(each.ok for each in self.records) / self.seconds


@functools.cache
def program() -> Path | None:
    """Compiled once per process; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    directory = tempfile.mkdtemp(prefix="rrdispatch-load-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = Path(directory) / "load"
    flags = ["-std=gnu11", "-O2", "-D_GNU_SOURCE"]
    done = subprocess.run([compiler, *flags, SOURCE, "-o", made, "-lm"], check=False)
    return made if done.returncode == 0 else None


def run(plan: Plan, seconds: float) -> Run:
    """Carry out a plan of one of MODES; each request counts from when it should have begun."""
    made = program()
    assert made is not None, "ask program() first"
    assert plan.mode in MODES, plan.mode
    words = [plan.mode, plan.address, plan.concurrency, seconds, plan.rate, plan.seed]
    words += [int(plan.timeout * 1000), plan.path]
    done = subprocess.run(
        [made, *map(str, words)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=seconds + plan.timeout + SPARE_S,
        check=True,
    )
    took, used = HEAD.unpack_from(done.stdout)
    records = [_record(values) for values in RECORD.iter_unpack(done.stdout[HEAD.size :])]
    return Run(records, min(seconds, took / 1e9), used / took)


def _record(values: tuple[int, ...]) -> Record:
    intended, connected, first, ended, pid, number, status, port, outcome, fresh = values
    return Record(
        number, 0, OUTCOMES[outcome], intended, connected, first, ended, port, status, pid,
        fresh=bool(fresh),
    )  # fmt: skip


@contextmanager
def nothing() -> Iterator[str]:
    """The address of a server that does nothing but answer."""
    made = program()
    assert made is not None, "ask program() first"
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen([made, "answer", address.rpartition(":")[2]], stdin=subprocess.PIPE)
    try:
        _until_it_listens(server, address)
        yield address
    finally:
        server.communicate()


def _until_it_listens(server: subprocess.Popen[bytes], address: str) -> None:
    host, _, port = address.rpartition(":")
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
    raise RuntimeError("the server that does nothing has ended")


def tell(plan: Plan, found: Run) -> str:
    """A line or two for people."""
    ordered = figures.latencies(found.records)
    quantiles = ", ".join(
        f"{name} {figures.number(quantile(ordered, share))} ms"
        for name, share in figures.QUANTILES.items()
    )
    kinds = Counter(each.outcome for each in found.records if not each.ok)
    failed = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "none failed"
    cost = 1e6 * found.busy * found.seconds / max(1, len(found.records))
    return (
        f"{plan.mode}: {found.rate:,.0f} answers/s; {quantiles}; {failed}\n"
        f"  the generator: {100 * found.busy:.0f} % of a core, {cost:.1f} us each: "
        f"it ends at about {1e6 / cost if cost else 0:,.0f}/s"
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.fast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", nargs="?", metavar="ADDRESS:PORT", help="IPv4")
    parser.add_argument("--limit", action="store_true", help="of the generator itself, each mode")
    parser.add_argument("--mode", choices=MODES, default="closed")
    parser.add_argument("--concurrency", type=int, default=40, help="of closed and kept")
    parser.add_argument("--rate", type=float, default=1000.0, help="of open, per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--path", default="/")
    parser.add_argument("--timeout", type=float, default=5.0)
    options = parser.parse_args(words)
    if options.limit == bool(options.address):
        parser.error("an address or --limit")
    if program() is None:
        sys.exit("loadtests.fast: a C compiler is needed: cc")
    plan = Plan(
        options.address or "", options.mode, rate=options.rate, concurrency=options.concurrency,
        path=options.path, timeout=options.timeout,
    )  # fmt: skip
    if options.limit:
        with nothing() as address:
            for mode in MODES:
                each = replace(plan, address=address, mode=mode)
                print(tell(each, run(each, options.seconds)))
    else:
        print(tell(plan, run(plan, options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

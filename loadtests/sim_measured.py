"""The real thing beside the model: the same arrivals and service times, sent over sockets.

Workers block in sleep, so that eight of them need no eight cores. What a request takes beyond its
own work is the machine's: sockets, HTTP, time slices, the generator. How much that is, requests one
after another show first (the floor); it keeps a worker as work does, so there is a second model in
which every request is by the floor longer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rrdispatch import Cluster

from .sim_app import NODE
from .sim_engine import Kind, Policy, Record, simulate
from .sim_ours import Ours
from .sim_policies import Node, Racing
from .sim_report import quantile, settled
from .sim_work import MS, SERVICES, Connection, Work, later, stretched

ROOT = Path(__file__).resolve().parents[1]
APP = "loadtests.sim_app:app"
LIMIT_S = 60.0
OURS = ("round-robin", "strict", "least-connections")
HEAD = ("", "mean", "p50", "p99", "p99.9", "max/min")


@dataclass(frozen=True)
class Place:
    """Where a contender listens, and what it is in the model."""

    name: str
    port: int
    model: Policy


@contextlib.contextmanager
def ours(name: str, workers: int, options: argparse.Namespace) -> Iterator[Place]:
    """rrdispatch with one thread per worker."""
    settings = {
        "cwd": str(ROOT), "access_log": False, "threads": 1, "policy": name,
        "stall_timeout": options.stall_timeout * MS, "band": options.band,
        "queue_limit": options.queue_limit,
    }  # fmt: skip
    model = Ours(
        name,
        stall_timeout=options.stall_timeout * MS,
        band=options.band,
        queue_limit=options.queue_limit,
    )
    with Cluster(APP, bind="127.0.0.1:0", workers=workers, **settings) as cluster:
        port = int(str(cluster.stats()["listeners"][0]["address"]).rpartition(":")[2])
        yield Place(name, port, model)


@contextlib.contextmanager
def program(command: list[str], pattern: str) -> Iterator[int]:
    """A server of somebody else, and the port that it says."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield _said(process, output.fileno(), pattern)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _said(process: subprocess.Popen[bytes], output: int, pattern: str) -> int:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(pattern, os.pread(output, 65536, 0).decode(errors="replace"))
        if found:
            return int(found[1])
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start: {os.pread(output, 4096, 0)!r}")


@contextlib.contextmanager
def racing(workers: int) -> Iterator[Place]:
    """gunicorn's synchronous workers: one listening socket for all."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers"]
    command += [str(workers), "--worker-class", "sync", "--timeout", "600", APP]
    with program(command, r"Listening at: http://127\.0\.0\.1:(\d+)") as port:
        yield Place("racing (gunicorn sync)", port, Racing(bias=1.0))


@contextlib.contextmanager
def node(workers: int, program_path: str) -> Iterator[Place]:
    """Node's cluster: its workers are event loops that the handler blocks."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "app.js"
        script.write_text(NODE, encoding="utf-8")
        with program([program_path, str(script), str(workers)], r"^(\d+)\n") as port:
            yield Place("node", port, Node())


def contenders(
    workers: int, options: argparse.Namespace
) -> Iterator[contextlib.AbstractContextManager[Place]]:
    """Those that are installed and were asked for."""
    wanted = options.policy or [*OURS, "racing", "node"]
    yield from (ours(name, workers, options) for name in OURS if name in wanted)
    if "racing" in wanted and _gunicorn():
        yield racing(workers)
    found = shutil.which("node")
    if "node" in wanted and found:
        yield node(workers, found)


def _gunicorn() -> bool:
    said = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--version"], capture_output=True, check=False
    )
    if said.returncode:
        print("no gunicorn to race: python -m pip install gunicorn", file=sys.stderr)
    return said.returncode == 0


async def ask(port: int, demand: float) -> tuple[float, bytes]:
    """One request on its own connection: when it was answered, and by whom."""
    path = f"/block/{demand / MS:.4f}"
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    # Without a turn of our loop between the two: on a busy machine the request can come so late
    # that a worker takes the connection for an idle one, and another one with it.
    connected = socket.create_connection(("127.0.0.1", port))
    connected.sendall(request)
    connected.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connected)
    answer = await reader.read()
    ended = asyncio.get_running_loop().time()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"not an answer: {answer[:80]!r}")
    # Node's answer may be chunked: the number is the longest line of the body.
    return ended, max(answer.partition(b"\r\n\r\n")[2].split(b"\r\n"), key=len)


async def open_loop(port: int, planned: list[tuple[float, Connection]]) -> Record:
    """Each request at its time, whatever became of the others; late is late from that time on."""
    loop = asyncio.get_running_loop()
    waits, who = array("d", bytes(8 * len(planned))), Counter[bytes]()
    begin = loop.time() + 0.1

    async def one(when: float, connection: Connection) -> None:
        demand = connection.demands[0]
        ended, answerer = await asyncio.wait_for(ask(port, demand), LIMIT_S)
        waits[connection.number] = ended - begin - when - demand
        who[answerer] += 1

    tasks = []
    for when, connection in planned:
        await asyncio.sleep(max(0.0, begin + when - loop.time()))
        tasks.append(asyncio.ensure_future(one(when, connection)))
    await asyncio.gather(*tasks)
    return Record(waits, sorted(who.values()), seconds=loop.time() - begin)


async def floor(port: int, times: int = 60) -> float:
    """Median of what a request of 1 ms takes beyond it when there is nobody else."""
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(times):
        begin = loop.time()
        found.append((await ask(port, MS))[0] - begin - MS)
    return statistics.median(found)


def line(name: str, record: Record, workers: int) -> str:
    """A row of the table, in milliseconds."""
    waits = sorted(settled(record))
    figures = [statistics.fmean(waits), *(quantile(waits, share) for share in (0.5, 0.99, 0.999))]
    counts = [0] * (workers - len(record.connections)) + sorted(record.connections)
    split = f"{counts[-1] / counts[0]:.2f}" if counts[0] else "-"
    return f"{name:34}" + "".join(f"{each / MS:9.2f}" for each in figures) + f"{split:>9}"


def side_by_side(options: argparse.Namespace) -> None:
    """Each contender and its model, for each number of workers and load."""
    service = stretched(SERVICES[options.service](), options.stretch)
    for workers in options.workers:
        for load in options.load:
            work = Work.at_load(service, load, workers, 1, options.seed)
            work = replace(work, count=max(20, int(work.rate * options.seconds)))
            print(f"\n{workers} workers, load {load:g}: {work.count} requests, waiting in ms")
            print(f"{HEAD[0]:34}" + "".join(f"{each:>9}" for each in HEAD[1:]))
            for contender in contenders(workers, options):
                with contender as place:
                    show(place, work, workers)


def show(place: Place, work: Work, workers: int) -> None:
    """Measured, and the model with the very same stream."""
    lowest = asyncio.run(floor(place.port))
    measured = asyncio.run(open_loop(place.port, list(work.connections())))
    kind = Kind(0 if place.name == "node" else 1)
    print(line(f"{place.name} (floor {lowest / MS:.1f})", measured, workers))
    print(line("  model", simulate(work, workers, kind, place.model), workers))
    longer = replace(work, service=later(work.service, lowest))
    record = simulate(longer, workers, kind, place.model)
    record.waits = array("d", [each + lowest for each in record.waits])
    print(line("  model, each longer by the floor", record, workers), flush=True)

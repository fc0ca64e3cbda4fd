"""Background jobs without a broker: each file in a folder is a job, workers share them.

rrdispatch run jobs.py spool -i 2 --no-listen --cwd examples

    echo "mail ann" > examples/spool/1.new && mv examples/spool/1.new examples/spool/1.job

``--no-listen``: nothing is distributed; start, respawn, reload, logs and stop are as for any app. A
job belongs to whoever holds its lock, and the kernel lets go of that however a worker ends: it is
done at least once, and by one worker at a time, also when two generations live side by side.
TERM: the job in hand is finished (within --drain-timeout), no other is begun. Reload: nor does the
old generation begin one while the new one is on probation; if that fails, the old one goes on.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rrdispatch

SLOT = os.environ.get("RRDISPATCH_SLOT", "?")
STOPPING = threading.Event()
PARKED = threading.Event()
PAUSE = 0.2  # between two looks at an empty folder


def do(job: str) -> None:
    """What your job is."""
    if job.startswith("sleep "):
        time.sleep(float(job.split()[1]))


@rrdispatch.on_park
def pause() -> None:
    PARKED.set()
    print(f"worker {SLOT} begins no more", flush=True)


@rrdispatch.on_resume
def go_on() -> None:
    PARKED.clear()
    print(f"worker {SLOT} goes on", flush=True)


@contextmanager
def locked(path: Path) -> Iterator[str | None]:
    """The job's text; None if it is somebody else's, or done."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
            yield file.read().strip() if there else None
    except (BlockingIOError, FileNotFoundError):
        yield None


def work(folder: Path) -> None:
    while not STOPPING.is_set():
        for path in sorted(folder.glob("*.job")):
            with locked(path) as job:
                if job is None or STOPPING.is_set() or PARKED.is_set():
                    continue
                print(f"worker {SLOT} begins {path.name}: {job}", flush=True)
                do(job)
                path.unlink()
                print(f"worker {SLOT} has done {path.name}", flush=True)
        STOPPING.wait(PAUSE)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: STOPPING.set())
    spool = Path(sys.argv[1])
    spool.mkdir(exist_ok=True)
    work(spool)

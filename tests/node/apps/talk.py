"""Messages of any size and number, both ways; a worker that does not read. argv: scenario."""

import hashlib
import json
import os
import signal
import sys

from rrdispatch import cluster

scenario = sys.argv[1]
LARGE = 8 << 20
MANY = 20_000


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def large(worker):
    text = "".join(chr(32 + i % 5000) for i in range(LARGE // 4)) + "\n\x00\u2028"
    os.kill(worker.process.pid, signal.SIGSTOP)  # it has no time to read
    say("sent", digest=digest(text), told=worker.send({"text": text}))
    os.kill(worker.process.pid, signal.SIGCONT)

    @worker.on("message")
    def back(message):
        say("back", digest=digest(message["text"]), length=len(message["text"]))
        worker.disconnect()


def flood(worker):
    seen = []

    @worker.on("message")
    def back(message):
        seen.append(message)
        if len(seen) == MANY:
            say("flood", ordered=seen == list(range(MANY)))
            worker.disconnect()

    for number in range(MANY):
        worker.send(number)


def deaf(worker):
    """A stopped worker: nobody waits for it, and another one is heard meanwhile."""
    os.kill(worker.process.pid, signal.SIGSTOP)
    told = [worker.send("x" * 100_000) for _ in range(100)]
    say("deaf", first=told[0], last=told[-1])
    other = cluster.fork()

    @other.on("message")
    def back(_):
        say("heard")
        worker.kill("SIGKILL")
        other.disconnect()

    other.send("ping")


def primary():
    cluster.on("exit", lambda worker, code, signal: say("exit", code=code, signal=signal))
    worker = cluster.fork()
    if scenario == "not-json":
        try:
            worker.send({1, 2})
        except TypeError:
            say("refused")
        worker.disconnect()
    elif scenario in ("last-words", "at-once"):
        cluster.on("disconnect", lambda worker: say("disconnect"))
        worker.on("message", lambda message: say("word", number=message))
    else:
        worker.once("online", lambda: globals()[scenario](worker))


def words(*_):
    for number in range(100):
        cluster.worker.send([number])
    sys.exit(5)


def worker():
    if scenario == "at-once":
        signal.signal(signal.SIGUSR1, words)
        say("pid", pid=os.getpid())
        while True:
            signal.pause()
    if scenario == "last-words":
        for number in range(1000):
            cluster.worker.send([number, "x" * 1000])
        sys.exit(5)
    cluster.worker.on("message", cluster.worker.send)


if cluster.is_primary:
    primary()
else:
    worker()

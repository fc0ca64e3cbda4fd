"""Every sender of a channel is gone: primary and dispatcher are dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.servers import wait_until

from .kit import preloaded, shim_needed
from .primary import READY
from .scripts import line

pytestmark = shim_needed

ENDED = """
import threading
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
server.bind(("127.0.0.1", port))
server.listen()
WAY
"""
LOOPS = {
    "blocking": """
def serve():
    while True:
        attempt(server.accept)
threading.Thread(target=serve, daemon=True).start()
while not caught:
    time.sleep(0.01)
""",
    "threads": """
def serve():
    while True:
        attempt(server.accept)
for _ in range(4):
    threading.Thread(target=serve, daemon=True).start()
while not caught:
    time.sleep(0.01)
""",
    "two-listeners": """
other = socket.create_server(("127.0.0.2", port), reuse_port=False)
def serve(which):
    while True:
        attempt(which.accept)
for which in (server, other):
    threading.Thread(target=serve, args=(which,), daemon=True).start()
while not caught:
    time.sleep(0.01)
""",
    "poll": """
server.setblocking(False)
poll = select.poll()
poll.register(server, select.POLLIN)
end = None
while end is None or time.monotonic() < end:
    for _ in poll.poll(50):
        attempt(server.accept)
    if caught and end is None:
        end = time.monotonic() + 0.5
""",
    "epoll": """
server.setblocking(False)
poll = select.epoll()
poll.register(server, select.EPOLLIN)
end = None
while end is None or time.monotonic() < end:
    for _ in poll.poll(0.05):
        attempt(server.accept)
    if caught and end is None:
        end = time.monotonic() + 0.5
""",
    "edge": """
server.setblocking(False)
poll = select.epoll()
poll.register(server, select.EPOLLIN | select.EPOLLET)
end = None
while end is None or time.monotonic() < end:
    for _ in poll.poll(0.05):
        attempt(server.accept)
    if caught and end is None:
        end = time.monotonic() + 0.5
""",
}
EPILOGUE = """
used = time.process_time()
time.sleep(0.5)
told((len(caught), time.process_time() - used < 0.25, server.getsockname()[1] == port))
os._exit(0)
"""


@pytest.mark.parametrize("way", LOOPS)
def test_the_channel_ends(tmp_path: Path, way: str) -> None:
    """SIGTERM once, and then silence: nothing spins."""
    body = ENDED.replace("WAY", LOOPS[way]) + EPILOGUE
    with preloaded(tmp_path, body) as (primary, process):
        primary.wait(lambda: bool(primary.asked(READY)))
        primary.end_channels()
        assert line(process) == "(1, True, True)"
        assert process.wait(20) == 0


def test_a_group_ends_with_its_channel(tmp_path: Path) -> None:
    """Children that accept, and one that does not."""
    body = """
server.bind(("127.0.0.1", port))
server.listen()
for number in range(3):
    if os.fork() == 0:
        told("child")
        while number:
            server.accept()
        time.sleep(60)
told("parent")
while True:
    os.wait()
"""
    with preloaded(tmp_path, body) as (primary, process):
        assert sorted(line(process) for _ in range(4)) == ["child"] * 3 + ["parent"]
        primary.wait(lambda: bool(primary.asked(READY)))
        primary.end_channels()
        assert process.wait(20) == -15
        wait_until(lambda: not group_lives(process.pid), 20.0, "the group has ended")


def group_lives(group: int) -> bool:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False

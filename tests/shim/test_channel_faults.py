"""The shim when a channel brings what is no connection: probes, nonsense."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import Field, Kind
from tests.harness.readable import readable
from tests.harness.servers import wait_until

from .kit import ask, free_port, preloaded, shim_needed
from .primary import MESSAGE, READY, fake_primary
from .scripts import go_on, line, running

pytestmark = shim_needed


SERVES = """
server.bind(("127.0.0.1", port))
server.listen()
while True:
    connection, peer = server.accept()
    what = connection.recv(1)
    connection.sendall(what)
    connection.close()
    if what == b"n":
        told(len(os.listdir("/proc/self/fd")))
    if what == b"q":
        break
"""


def test_probes_are_swallowed(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(SERVES, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            assert ask(port, b"n") == b"n"
            before = line(process)
            for _ in range(10):
                primary.send_probe()
                assert ask(port, b"a") == b"a"
            assert ask(port, b"n") == b"n"
            assert line(process) == before
        assert primary.count(Field.RECEIVED) == primary.count(Field.CLOSED) == 12


WAITS = {
    "select": "ready = select.select([server], [], [], 0.02)[0]",
    "select for ever": "ready = select.select([server, other], [], [])[0]",
    "poll": "ready = poll.poll(20)",
    "poll for ever": "ready = poll.poll()",
}


@pytest.mark.parametrize("way", WAITS)
def test_a_probe_wakes_nobody_into_a_blocking_accept(tmp_path: Path, way: str) -> None:
    """What else the program waits for goes on, as a real listener is never readable in vain."""
    body = f"""
server.bind(("127.0.0.1", port))
server.listen()
other, ticker = socket.socketpair()
poll = select.poll()
poll.register(server, select.POLLIN)
poll.register(other, select.POLLIN)
ticks = 0
signal.signal(signal.SIGALRM, lambda *_: ticker.send(b"t"))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
while True:
    {WAITS[way]}
    ready = [one if isinstance(one, int) else one[0] if isinstance(one, tuple) else one.fileno()
             for one in ready]
    if other.fileno() in ready:
        other.recv(100)
        ticks += 1
    if not ready or other.fileno() in ready:
        told("tick")
    if server.fileno() in ready:
        connection, _ = server.accept()
        connection.sendall(connection.recv(1))
        connection.close()
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(3):
                primary.send_probe()
                for _ in range(50):
                    assert line(process) == "tick"
                assert ask(port, b"x") == b"x"
            assert primary.count(Field.RECEIVED) == 3


@pytest.mark.parametrize(
    "limited",
    [
        "select.select([server], [], [], 0.5)",
        "poll.poll(500)",
        "libc.pselect(server.fileno() + 1, bits, None, None, half, None)",
        "libc.ppoll(item, 1, half, None)",
    ],
    ids=["select", "poll", "pselect", "ppoll"],
)
def test_probes_make_no_wait_longer(tmp_path: Path, limited: str) -> None:
    """However many come, it ends when its time is over."""
    body = f"""
import ctypes, struct
libc = ctypes.CDLL(None)
server.bind(("127.0.0.1", port))
server.listen()
poll = select.poll()
poll.register(server, select.POLLIN)
half = struct.pack("qq", 0, 500_000_000)
item = ctypes.create_string_buffer(struct.pack("ihh", server.fileno(), select.POLLIN, 0))
bits = ctypes.create_string_buffer((1 << server.fileno()).to_bytes(128, "little"))
poll.poll(0)
told("waits")
sys.stdin.readline()
{limited}
told("over")
time.sleep(60)
"""
    with preloaded(tmp_path, body) as (primary, process):
        assert line(process) == "waits"
        primary.wait(lambda: bool(primary.asked(READY)))
        (place,) = primary.places.values()
        assert process.stdout is not None
        go_on(process)  # its next line is not in our buffer yet
        for _ in range(400):  # each before the wait would be over
            if readable(process.stdout, 0.05):
                break
            if not unread(place.receiving):
                primary.send_probe()
        else:
            pytest.fail("it waits for ever")
        assert line(process) == "over"


def test_probes_and_many_processes(tmp_path: Path) -> None:
    """Whoever takes a connection where it saw a probe keeps it for its next accept."""
    body = """
server.bind(("127.0.0.1", port))
server.listen()
server.setblocking(False)
poll = select.poll()
poll.register(server, select.POLLIN)
for _ in range(3):
    os.fork()
while True:
    for _ in poll.poll():
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        connection.sendall(connection.recv(1))
        connection.close()
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded):
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(60):
                clients = []
                for _ in range(4):
                    primary.send_probe()
                    clients.append(socket.create_connection(("127.0.0.1", port), timeout=20))
                for client in clients:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    client.close()
        assert primary.count(Field.RECEIVED) == 240


@pytest.mark.parametrize(
    ("head", "fds"),
    [
        (bytes(64), 1),
        (MESSAGE.pack(9, Kind.CONNECTION, 1, 0, 0, 0, b""), 1),
        (MESSAGE.pack(1, 77, 1, 0, 0, 0, b""), 1),
        (MESSAGE.pack(1, Kind.PROBE, 1, 0, 0, 0, b""), 3),
        (MESSAGE.pack(1, 77, 1, 0, 0, 0, b""), 40),
        (MESSAGE.pack(1, 77, 1, 0, 0, 0, b"")[:20], 1),
        (MESSAGE.pack(1, Kind.CONNECTION, 1, 0, 0, 0, b""), 0),
    ],
    ids=["zeros", "version", "kind", "probe-with-3", "kind-with-40", "short", "nothing-in-it"],
)
def test_nonsense_on_the_channel(tmp_path: Path, head: bytes, fds: int) -> None:
    """Whatever comes, its fds are closed, and the next connection is served."""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(SERVES, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            assert ask(port, b"n") == b"n"
            before = line(process)
            (place,) = primary.places.values()
            null = os.open(os.devnull, os.O_RDWR)
            with socket.socket(fileno=os.dup(place.sending)) as sending:
                socket.send_fds(sending, [head], [null] * fds)
            os.close(null)
            wait_until(
                lambda: not _core.pending(place.receiving) and not unread(place.receiving), 20.0
            )
            assert ask(port, b"n") == b"n"
            assert line(process) == before


def unread(fd: int) -> int:
    import fcntl
    import termios

    room = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, room)
    return int(struct.unpack("i", room)[0])


def test_the_environment_is_read_once(tmp_path: Path) -> None:
    body = "os.environ.clear()\n" + SERVES
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded):
            primary.wait(lambda: bool(primary.asked(READY)))
            assert ask(port, b"q") == b"q"


@pytest.mark.parametrize(
    "changed",
    [
        {"RRDISPATCH_SOCKET": ""},
        {"RRDISPATCH_KEY": "7"},
        {"RRDISPATCH_KEY": "7:abcd"},
        {"RRDISPATCH_KEY": "7:" + "g" * 32},
        {"RRDISPATCH_KEY": "7:" + "a" * 33},
        {"RRDISPATCH_KEY": "-:" + "a" * 32},
        {"RRDISPATCH_SOCKET": "/" + "x" * 200},
    ],
)
def test_without_a_worker_s_environment_it_does_nothing(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    with fake_primary(tmp_path) as primary:
        port = free_port()
        body = SERVES.replace("while True", 'told("up")\nwhile True')
        with running(body, port, {**primary.preloaded, **changed}) as process:
            assert line(process) == "up"
            assert ask(port, b"q") == b"q"
        assert primary.requests == []

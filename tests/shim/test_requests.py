"""What the primary hears of a program, and what the scoreboard says of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rrdispatch._core.layout import Field

from .kit import ask, free_port, preloaded, shim_needed
from .primary import LISTEN, OPTION, READY, WORKER, fake_primary, host_and_port
from .scripts import go_on, line, run, running

pytestmark = shim_needed

COUNTED = (Field.RECEIVED, Field.CLOSED, Field.LOST)


def test_what_listen_says(tmp_path: Path) -> None:
    body = """
server.bind(("127.0.0.1", port))
server.listen(77)
server.listen(78)
six = socket.socket(socket.AF_INET6)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
six.bind(("::1", port))
six.listen(5)
told(os.getpid())
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        told = run(body, port, primary.preloaded)
        four, six = primary.asked(LISTEN)
        assert host_and_port(four.address) == (socket.AF_INET, ("127.0.0.1", port))
        assert host_and_port(six.address) == (socket.AF_INET6, ("::1", port))
        assert (four.backlog, six.backlog) == (77, 5)
        assert (four.v6only, six.v6only) == (0, 1)
        for request in primary.requests:
            assert (request.worker, request.key) == (WORKER, primary.key)
            assert request.pid == int(told)
        # Nothing waited for a connection.
        assert primary.asked(READY) == []


def test_a_primary_without_a_path(tmp_path: Path) -> None:
    """It is found after chroot, and after setuid."""
    body = """
server.bind(("127.0.0.1", port))
os.chroot(sys.executable.rpartition("/")[0])
os.chdir("/")
os.setuid(65534)
server.listen()
"""
    if os.getuid() != 0:
        pytest.skip("chroot is for root")
    with fake_primary(tmp_path, abstract=True) as primary:
        run(body, free_port(), primary.preloaded)
        assert len(primary.asked(LISTEN)) == 1


WAITS = {
    "accept": "server.accept()",
    "poll": "p = select.poll(); p.register(server, select.POLLIN); p.poll(10)",
    "select": "select.select([server], [], [], 0.01)",
    "epoll": "p = select.epoll(); p.register(server, select.EPOLLIN)",
    "epoll-modify": """
p = select.epoll()
p.register(server, 0)
p.modify(server, select.EPOLLIN)
""",
    "in-a-child": """
if os.fork() == 0:
    select.select([server], [], [], 0.01)
    os._exit(0)
os.wait()
""",
    "in-an-exec-d-child": """
os.set_inheritable(server.fileno(), True)
code = "import select, sys; select.select([int(sys.argv[1])], [], [], 0.01)"
os.spawnv(os.P_WAIT, sys.executable, ["python", "-S", "-c", code, str(server.fileno())])
""",
    "known-to-epoll-before": "pass",
}


@pytest.mark.parametrize("way", WAITS)
def test_ready_is_said_by_the_first_that_waits(tmp_path: Path, way: str) -> None:
    body = f"""
server.bind(("127.0.0.1", port))
if {way == "known-to-epoll-before"}:
    early = select.epoll()
    early.register(server, select.EPOLLIN)
server.listen()
if {way != "known-to-epoll-before"}:
    told("listens")
    sys.stdin.readline()
{WAITS[way]}
told("waited")
time.sleep(60)
"""
    with preloaded(tmp_path, body) as (primary, process):
        if way != "known-to-epoll-before":
            assert line(process) == "listens"
            assert primary.asked(READY) == []
            go_on(process)
        primary.wait(lambda: bool(primary.asked(READY)))
        if way != "accept":
            assert line(process) == "waited"
        assert len(primary.asked(READY)) == 1


def test_ready_is_said_once(tmp_path: Path) -> None:
    body = """
server.bind(("127.0.0.1", port))
server.listen()
server.setblocking(False)
for _ in range(50):
    select.select([server], [], [], 0)
    attempt(server.accept)
    poll = select.epoll()
    poll.register(server, select.EPOLLIN)
    poll.close()
"""
    with fake_primary(tmp_path) as primary:
        run(body, free_port(), primary.preloaded)
        assert [request.kind for request in primary.requests] == [LISTEN, READY]


def test_a_program_that_only_connects_is_not_heard_of(tmp_path: Path) -> None:
    body = """
import socketserver, threading
poll = select.epoll()
with socket.create_server(("127.0.0.1", 0)) as own:
    poll.register(own, select.EPOLLIN)
    for _ in range(20):
        client = socket.create_connection(own.getsockname())
        poll.register(client, select.EPOLLIN)
        select.select([own], [client], [], 5)
        there, peer = own.accept()
        assert peer == client.getsockname()
        client.close()
        there.close()
"""
    with fake_primary(tmp_path) as primary:
        run(body, free_port(), primary.preloaded)
        assert primary.requests == []


@pytest.mark.parametrize(
    ("listen", "taken"),
    [
        ("", True),
        ("PORT", True),
        ("1,PORT", True),
        (" 1 , PORT ", True),
        ("127.0.0.1:PORT", True),
        ("localhost:PORT", True),
        ("*:PORT", True),
        ("[::ffff:127.0.0.1]:PORT", True),
        ("0.0.0.0:PORT", False),
        ("127.0.0.2:PORT", False),
        ("[::1]:PORT", False),
        ("1", False),
        ("nonsense", False),
        (",,,", False),
        ("PORT0", False),
        ("x" * 300 + ",PORT", True),
        ("1," * 63 + "PORT", True),
    ],
)
def test_which_addresses_are_taken(tmp_path: Path, listen: str, taken: bool) -> None:
    body = """
server.bind(("127.0.0.1", port))
server.listen()
told(server.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET)
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        limited = {**primary.preloaded, "RRDISPATCH_LISTEN": listen.replace("PORT", str(port))}
        assert run(body, port, limited) == "True\n"
        assert bool(primary.requests) == taken


def test_port_0_for_tests(tmp_path: Path) -> None:
    body = """
server.bind(("127.0.0.1", 0))
server.listen()
other = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
connection, peer = server.accept()
told(peer == client.getsockname())
"""
    with fake_primary(tmp_path) as primary:
        any_port = {**primary.preloaded, "RRDISPATCH_ANY_PORT": "1"}
        assert run(body, 0, any_port) == "True\n"
        assert len({request.address for request in primary.asked(LISTEN)}) == 2


def test_options_reach_the_real_listener(tmp_path: Path) -> None:
    body = """
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
server.bind(("127.0.0.1", port))
server.listen()
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
# These would cost connections if they were set on the channel.
attempt(server.setsockopt, socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4096)
client = socket.create_connection(("127.0.0.1", port))
client.sendall(b"x" * 5000)
connection, _ = server.accept()
told(connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
told(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 4))
told(connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
"""
    with fake_primary(tmp_path) as primary:
        told = run(body, free_port(), primary.preloaded).splitlines()
        assert told == ["100000", "b'reno'", "4096"]
        (place,) = primary.places.values()
        assert place.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 3
        options = [(request.level, request.option) for request in primary.asked(OPTION)]
        assert options[0] == (socket.SOL_SOCKET, socket.SO_RCVBUF)


# ---- the scoreboard ------------------------------------------------------------------------------


def test_connections_are_counted(tmp_path: Path) -> None:
    body = """
server.bind(("127.0.0.1", port))
server.listen()
kept = []
while len(kept) < 6:
    connection, _ = server.accept()
    connection.sendall(connection.recv(1))
    kept.append(connection)
told("six")
sys.stdin.readline()
kept[0].close()
os.dup2(server.fileno(), kept[1].fileno())
os.closerange(kept[2].fileno(), kept[3].fileno() + 1)
os.fdopen(os.dup(kept[4].fileno())).close()
told("four")
sys.stdin.readline()
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(6):
                assert ask(port, b"x") == b"x"
            assert line(process) == "six"
            assert [primary.count(field) for field in COUNTED] == [6, 0, 0]
            go_on(process)
            assert line(process) == "four"
            assert [primary.count(field) for field in COUNTED] == [6, 4, 0]


def test_a_forking_server_counts_each_connection_once(tmp_path: Path) -> None:
    body = """
import subprocess
server.bind(("127.0.0.1", port))
server.listen()
for _ in range(10):
    connection, _ = server.accept()
    if os.fork() == 0:
        server.close()
        connection.sendall(connection.recv(1))
        connection.close()
        os._exit(0)
    # A child that closes all, after vfork, is not us.
    subprocess.run(["true"], close_fds=True)
    connection.close()
    os.wait()
told("done")
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(10):
                assert ask(port, b"x") == b"x"
            assert line(process) == "done"
        assert [primary.count(field) for field in COUNTED] == [10, 10, 0]


def test_children_that_accept_are_counted(tmp_path: Path) -> None:
    """Forked ones and exec'd ones, which fetch the scoreboard for themselves."""
    code = (
        "import socket, sys\n"
        "server = socket.socket(fileno=int(sys.argv[1]))\n"
        "for _ in range(5):\n"
        "    c, _ = server.accept(); c.sendall(c.recv(1)); c.close()\n"
    )
    body = f"""
server.bind(("127.0.0.1", port))
server.listen()
for _ in range(2):
    if os.fork() == 0:
        for _ in range(5):
            connection, _ = server.accept()
            connection.sendall(connection.recv(1))
            connection.close()
        os._exit(0)
    os.wait()
    os.set_inheritable(server.fileno(), True)
    os.spawnv(os.P_WAIT, sys.executable, ["python", "-S", "-c", {code!r}, str(server.fileno())])
told("done")
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(20):
                assert ask(port, b"x") == b"x"
            assert line(process) == "done"
        assert [primary.count(field) for field in COUNTED] == [20, 20, 0]


def test_a_child_between_vfork_and_exec_counts_nothing(tmp_path: Path) -> None:
    """It shares its parent's memory, and closes what it does not need."""
    body = """
import subprocess
server.bind(("127.0.0.1", port))
server.listen()
connection, _ = server.accept()
connection.sendall(connection.recv(1))
os.set_inheritable(connection.fileno(), True)
subprocess.run(["true"], close_fds=True)
number = connection.fileno()
os.dup2(0, number + 1)
subprocess.run(["true"], pass_fds=(number - 1, number + 1))  # closes this one by itself
told("children have been")
sys.stdin.readline()
connection.close()
told("closed")
"""
    with fake_primary(tmp_path) as primary:
        port = free_port()
        with running(body, port, primary.preloaded) as process:
            primary.wait(lambda: bool(primary.asked(READY)))
            assert ask(port, b"x") == b"x"
            assert line(process) == "children have been"
            assert [primary.count(field) for field in COUNTED] == [1, 0, 0]
            go_on(process)
            assert line(process) == "closed"
            assert [primary.count(field) for field in COUNTED] == [1, 1, 0]

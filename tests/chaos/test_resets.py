"""A reset that the kernel made by itself is told from one that somebody caused by closing."""

from __future__ import annotations

import socket

import pytest

from tests.chaos.resets import Reset, by_the_kernel, established, watching_resets
from tests.harness.servers import wait_until

CLIENT, OTHER, SERVER = "127.0.0.2:40000", "127.0.0.2:40001", "127.0.0.1:8000"
ANSWER, CLOSED = Reset(SERVER, CLIENT, True), Reset(SERVER, CLIENT, False)
REFUSED = Reset(CLIENT, SERVER, True)  # what the server sent when the client was gone


@pytest.mark.parametrize(
    ("seen", "alive", "excused"),
    [
        ([ANSWER, REFUSED], set(), True),
        ([ANSWER], {CLIENT}, True),
        ([ANSWER], set(), False),
        ([ANSWER], {OTHER}, False),
        ([REFUSED, ANSWER], set(), False),
        ([CLOSED, REFUSED], {CLIENT}, False),
        ([CLOSED, ANSWER, REFUSED], {CLIENT}, False),
        ([Reset(SERVER, OTHER, True), REFUSED], {CLIENT}, False),
        ([], {CLIENT}, False),
    ],
)
def test_only_one_whose_connection_lived_on(
    seen: list[Reset], alive: set[str], excused: bool
) -> None:
    assert by_the_kernel(CLIENT, SERVER, seen, alive) is excused


def test_closing_what_was_not_read_is_no_excuse() -> None:
    with watching_resets() as resets, socket.create_server(("127.0.0.1", 0)) as listener:
        if resets is None:
            pytest.skip("needs CAP_NET_RAW")
        server = "{}:{}".format(*listener.getsockname())
        with socket.create_connection(listener.getsockname()) as client:
            name = "{}:{}".format(*client.getsockname())
            connection, _ = listener.accept()
            assert name in established(server)
            client.send(b"x")
            wait_until(lambda: bool(connection.recv(1, socket.MSG_PEEK)), 5.0, "it came")
            connection.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        resets.look()
        assert [each for each in resets.seen if each.to == name] == [Reset(server, name, False)]
        assert name not in established(server)
        assert not by_the_kernel(name, server, resets.seen, set())

"""A channel keeps what is queued as long as one receiving end lives."""

from __future__ import annotations

import gc
import os
import socket

from rrdispatch import _core
from rrdispatch._core.layout import Message
from rrdispatch.net.channels import Channel


def test_queued_connections_are_counted_and_taken_in_order():
    channel = Channel.create()
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, theirs) in enumerate(pairs):
        _core.send(channel.sender, Message(accepted_ns=number).pack(), [theirs.fileno()])
        theirs.close()
        ours.sendall(b"%d" % number)
    assert channel.pending() == 3
    for number, (ours, _) in enumerate(pairs):
        taken = _core.take(channel.receiver)
        assert taken is not None
        assert taken.accepted_ns == number
        with socket.socket(fileno=taken.fds[0]) as connection, ours:
            assert connection.recv(9) == b"%d" % number
    assert channel.pending() == 0
    channel.close()


def test_both_ends_are_close_on_exec_and_closed_once():
    gc.collect()  # what other tests left is not closed meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    channel = Channel.create()
    assert not os.get_inheritable(channel.sender)
    assert not os.get_inheritable(channel.receiver)
    channel.close()
    channel.close()
    assert sorted(os.listdir("/proc/self/fd")) == before

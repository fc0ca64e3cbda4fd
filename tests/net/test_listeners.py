"""Listening sockets: options, errors that say what to do, and the life of a unix socket's file."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import psutil
import pytest

from rrdispatch.errors import BindError
from rrdispatch.net.addresses import InetAddress, InheritedAddress, UnixAddress, parse
from rrdispatch.net.listeners import bind, bound_address, describe, port_holder


def option(sock, level, name):
    return sock.getsockopt(level, name)


@pytest.mark.parametrize(
    ("text", "family"),
    [("127.0.0.1:0", "inet"), (":0", "inet"), ("localhost:0", "inet"), ("[::1]:0", "inet6")],
)
def test_a_tcp_listener_has_the_options_it_needs(text, family):
    with bind(parse(text)) as sock:
        told = describe(sock)
        assert told["family"] == family
        assert told["address"] == list(sock.getsockname()[:2])
        assert told["address"][1] > 0
        assert bound_address(sock) == InetAddress(*told["address"])
        assert not sock.inherited
        assert not sock.get_inheritable()
        assert not sock.getblocking()
        assert option(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert option(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if family == "inet6":
            assert option(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_the_same_port_on_v4_and_v6():
    for turn in range(5):
        with bind(parse("127.0.0.1:0")) as first:
            port = first.getsockname()[1]
            try:
                second = bind(InetAddress("::1", port))
            except BindError:  # somebody else has it there; not five times
                assert turn < 4
                continue
            with second:
                assert second.getsockname()[1] == port
            return


def test_a_port_in_use_names_its_holder():
    with bind(parse("127.0.0.1:0")) as first:
        port = first.getsockname()[1]
        with pytest.raises(BindError) as caught:
            bind(InetAddress("127.0.0.1", port))
        assert f"pid {os.getpid()}" in caught.value.message
        assert caught.value.holder == os.getpid()
        assert f"127.0.0.1:{port}" in caught.value.message
        assert caught.value.hint


def test_an_unknown_holder_is_not_an_error(monkeypatch):
    def refuse(kind):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    assert port_holder(1) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 70 + ".b"])
def test_an_address_that_is_not_ours(host):
    with pytest.raises(BindError) as caught:
        bind(InetAddress(host, 0))
    assert host in caught.value.message
    assert "127.0.0.1" in (caught.value.hint or "") or "0.0.0.0" in (caught.value.hint or "")


def test_a_unix_socket_is_removed_by_its_owner(tmp_path):
    path = tmp_path / "app.sock"
    sock = bind(UnixAddress(str(path)))
    assert describe(sock) == {"family": "unix", "address": str(path)}
    assert bound_address(sock) == UnixAddress(str(path))
    sock.unlink()
    assert not path.exists()
    sock.unlink()
    sock.close()


def test_a_unix_socket_of_a_successor_is_left_alone(tmp_path):
    path = tmp_path / "app.sock"
    with bind(UnixAddress(str(path))) as old:
        path.unlink()
        with bind(UnixAddress(str(path))):
            old.unlink()
            assert path.is_socket()


def test_a_file_that_vanished_is_no_error(tmp_path):
    path = tmp_path / "app.sock"
    with bind(UnixAddress(str(path))) as sock:
        path.unlink()
        sock.unlink()


def test_a_stale_unix_socket_is_replaced(tmp_path):
    path = tmp_path / "app.sock"
    bind(UnixAddress(str(path))).close()
    assert path.is_socket()
    with bind(UnixAddress(str(path))) as sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        connection, _ = sock.accept()
        connection.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_living_unix_socket_is_left_alone(tmp_path, full):
    path = tmp_path / "app.sock"
    with bind(UnixAddress(str(path)), backlog=0), socket.socket(socket.AF_UNIX) as client:
        if full:
            client.connect(str(path))
        with pytest.raises(BindError, match="another process listens"):
            bind(UnixAddress(str(path)))
    assert path.is_socket()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(BindError, match="no socket"):
        bind(UnixAddress(str(path)))
    assert path.read_text() == "data"


def test_a_missing_directory_is_said():
    with pytest.raises(BindError, match="No such file") as caught:
        bind(UnixAddress("/nonexistent/app.sock"))
    assert "directory" in (caught.value.hint or "")


@pytest.mark.parametrize("listening", [True, False])
def test_an_inherited_listener_is_adopted(listening):
    outer = socket.socket()
    outer.bind(("127.0.0.1", 0))
    if listening:
        outer.listen(5)
    outer.set_inheritable(True)
    with bind(InheritedAddress(outer.detach())) as sock:
        assert sock.inherited
        assert option(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.get_inheritable()
        assert not sock.getblocking()


def test_an_inherited_number_that_is_no_stream_socket():
    with pytest.raises(BindError, match="fd://999"):
        bind(InheritedAddress(999))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(BindError, match="stream socket"):
            bind(InheritedAddress(datagrams.fileno()))
        assert datagrams.getsockname()
    with Path(os.devnull).open() as file, pytest.raises(BindError, match="not a socket"):
        bind(InheritedAddress(file.fileno()))


def test_failures_leave_no_descriptor_open(tmp_path):
    (tmp_path / "file").touch()
    gc.collect()  # what other tests left is not closed meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    for text in ("192.0.2.1:0", f"unix:{tmp_path}/file", "unix:/nonexistent/x", "fd://999"):
        with pytest.raises(BindError):
            bind(parse(text))
    assert sorted(os.listdir("/proc/self/fd")) == before

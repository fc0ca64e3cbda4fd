"""One question over a fresh connection, in protocols that the load client does not speak.

Each takes a connected socket and gives (pid of the server's process, whom it sees).
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Protocol

Seen = tuple[int, str]


class Stream(Protocol):
    """A connection as a file."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


Exchange = Callable[[socket.socket], Seen]

# RFC 9113 and RFC 7541, just enough for one request whose answer's headers nobody decodes.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
END_STREAM, END_HEADERS = 1, 4
GET_ROOT = b"\x82\x84\x41\x04test"  # :method GET, :path /, :authority test
SCHEME_HTTPS = b"\x87"
TEXT_FRAME = 0x81  # RFC 6455, unmasked


def redis(client: socket.socket) -> Seen:
    """Inline commands; the answer is a bulk string."""
    with client.makefile("rwb") as stream:
        process = re.search(r"process_id:(\d+)", _redis_bulk(stream, b"INFO server\r\n"))
        peer = re.search(r"\baddr=(\S+)", _redis_bulk(stream, b"CLIENT INFO\r\n"))
    return _told(f"{process and process[1]} {peer and peer[1]}")


def _redis_bulk(stream: Stream, command: bytes) -> str:
    stream.write(command)
    stream.flush()
    head = stream.readline()
    return stream.read(int(head[1:]) + 2).decode() if head[:1] == b"$" else ""


def tls(client: socket.socket) -> Seen:
    """HTTP/1.1 inside."""
    with _wrapped(client, "http/1.1") as secure, secure.makefile("rwb") as stream:
        stream.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        stream.flush()
        head, _, body = stream.read().partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(head.decode("latin-1"))
    return _told(body.decode())


def _wrapped(client: socket.socket, protocol: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(client, server_hostname="localhost")


def http2(client: socket.socket) -> Seen:
    with _wrapped(client, "h2") as secure, secure.makefile("rwb") as stream:
        if secure.selected_alpn_protocol() != "h2":
            raise ConnectionError("no h2")
        stream.write(PREFACE + _frame(SETTINGS, 0, 0, b""))
        stream.write(_frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_ROOT + SCHEME_HTTPS))
        stream.flush()
        body, ended = b"", False
        while not ended:
            kind, flags, payload = _read_frame(stream)
            if kind == GOAWAY:
                raise ConnectionError("goes away")
            body += payload if kind == DATA else b""
            ended = kind in (DATA, HEADERS) and bool(flags & END_STREAM)
    return _told(body.decode())


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _read_frame(stream: Stream) -> tuple[int, int, bytes]:
    head = stream.read(9)
    if len(head) < 9:
        raise ConnectionError("closed before the whole answer")
    length = int.from_bytes(head[:3], "big")
    return head[3], head[4], stream.read(length)


def websocket(client: socket.socket) -> Seen:
    """The server speaks first, a short text."""
    lines = (
        "GET / HTTP/1.1", "Host: test", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    )  # fmt: skip
    with client.makefile("rwb") as stream:
        stream.write("\r\n".join(lines).encode())
        stream.flush()
        status = stream.readline()
        if b" 101 " not in status:
            raise ConnectionError(status.decode("latin-1") or "closed")
        while stream.readline().strip():
            pass
        head = stream.read(2)
        if len(head) < 2 or head[0] != TEXT_FRAME:
            raise ConnectionError(f"no text but {head!r}")
        return _told(stream.read(head[1]).decode())


def _told(text: str) -> Seen:
    """``PID PEER``."""
    process, _, peer = text.strip().partition(" ")
    if not process.isdigit():
        raise ConnectionError(f"said {text[:60]!r}")
    return int(process), peer


EXCHANGES: dict[str, Exchange] = {
    "redis": redis, "tls": tls, "http2": http2, "websocket": websocket,
}  # fmt: skip

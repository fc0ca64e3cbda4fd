"""TLS for WSGI: waitress has none. A handshake never blocks the loop that serves the others.

Owns the TLS state of a connection; its end is counted as that of the connection below.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from rrdispatch.errors import TargetError
from rrdispatch.worker.connection import Connection

from .options import Options

RECORD = 16384  # what one TLS record can hold: one read of this size leaves nothing in OpenSSL


def server_context(options: Options) -> ssl.SSLContext:
    """The context for a certificate; what does not work is said in our words."""
    if not options.ssl_certfile:
        raise TargetError("TLS needs a certificate, too", hint="--ssl-certfile names its PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    password = options.ssl_keyfile_password or ""  # None: OpenSSL would ask a terminal
    try:
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, lambda: password)
    except OSError as error:
        raise _error(options, error) from None
    return context


def _error(options: Options, error: OSError) -> TargetError:
    files = " and ".join(f for f in (options.ssl_certfile, options.ssl_keyfile) if f)
    return TargetError(
        f"TLS with {files} does not work: {_reason(options, error)}",
        hint="--ssl-certfile and --ssl-keyfile name PEM files that belong together",
    )


def _reason(options: Options, error: OSError) -> str:
    """OpenSSL itself says little more than that something of PEM went wrong."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return str(error.strerror)
    try:
        chain = Path(options.ssl_certfile or "").read_bytes()
        key = Path(options.ssl_keyfile).read_bytes() if options.ssl_keyfile else chain
    except OSError as other:
        return str(other.strerror)
    if b"BEGIN CERTIFICATE" not in chain and b"BEGIN TRUSTED CERTIFICATE" not in chain:
        return "it holds no PEM certificate"
    if b"PRIVATE KEY" not in key:
        return "it holds no PEM key"
    if b"ENCRYPTED" in key:
        return "the key's password is wrong or missing"
    return str(error.reason if isinstance(error, ssl.SSLError) and error.reason else error)


class TlsConnection:
    """The part of a socket that waitress uses, never blocking.

    The loop reads while a task thread writes; OpenSSL wants one at a time.
    """

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._peer = connection.peer
        family = connection.family
        fd, self._tally = connection.hand_over()
        plain = socket.socket(family, socket.SOCK_STREAM, connection.proto, fileno=fd)
        plain.setblocking(False)
        try:
            self._sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except OSError:
            # The client has reset it already; OpenSSL was never asked.
            self._tally.close()
            plain.close()
            raise
        self._lock = threading.Lock()
        self.established = False

    def shake_hands(self) -> None:
        """One step; ``established`` says whether it was the last. OSError: it failed."""
        try:
            with self._lock:
                self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self.established = True

    def recv(self, size: int) -> bytes:
        """BlockingIOError: nothing yet; b"": the client said goodbye."""
        try:
            with self._lock:
                return self._sock.recv(max(size, RECORD))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise _later() from None
        except ssl.SSLEOFError:
            return b""

    def send(self, data: bytes) -> int:
        try:
            with self._lock:
                sent = self._sock.send(data)
            self._tally.answers()
            return sent
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise _later() from None
        except ssl.SSLError as error:
            # waitress knows what an EPIPE means.
            raise BrokenPipeError(errno.EPIPE, str(error)) from None

    def close(self) -> None:
        self._tally.close()
        if self.established:
            try:
                with self._lock:
                    self._sock.unwrap()  # says goodbye; nobody waits for the answer
            except (OSError, ValueError):
                self.established = False
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: Any) -> None:
        """It never blocks."""

    def getsockopt(self, level: int, option: int) -> int:
        return self._sock.getsockopt(level, option)

    def getpeername(self) -> Any:
        return self._peer


def _later() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

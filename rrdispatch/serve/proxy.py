"""What a trusted proxy says of its client: the same rules for ASGI and WSGI.

X-Forwarded-Proto and X-Forwarded-For are believed from trusted peers only: listed addresses and
networks, ``*`` for everybody, and peers of a unix socket always (who may connect there is decided
by the file's mode). The client is the last address in the list that is not a trusted proxy.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DEFAULT = "127.0.0.1,::1"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Scope = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Trust:
    """Who is believed: ``trusted`` is a list with commas; None reads FORWARDED_ALLOW_IPS."""

    def __init__(self, trusted: str | None = None) -> None:
        if trusted is None:
            trusted = os.environ.get("FORWARDED_ALLOW_IPS", DEFAULT)
        items = [item.strip() for item in trusted.split(",") if item.strip()]
        self.everybody = "*" in items
        self._addresses: set[Address] = set()
        self._networks: list[Network] = []
        self._names: set[str] = set()
        for item in items:
            self._add(item)
        self._known = functools.lru_cache(maxsize=4096)(self._look_up)

    def _add(self, item: str) -> None:
        try:
            if "/" in item:
                self._networks.append(ipaddress.ip_network(item, strict=False))
            else:
                self._addresses.add(ipaddress.ip_address(item))
        except ValueError:
            self._names.add(item)

    def peer(self, host: str | None) -> bool:
        """Is a peer trusted? None is a peer of a unix socket."""
        return host is None or self.everybody or self._known(host[:64])

    def _look_up(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self._names
        mapped = getattr(address, "ipv4_mapped", None)  # a v4 client of a v6 listener
        address = mapped or address
        return address in self._addresses or any(
            address.version == network.version and address in network for network in self._networks
        )

    def client(self, forwarded_for: str) -> tuple[str, int] | None:
        """The client's address of an X-Forwarded-For, with its port if the proxy told it."""
        hops = [_host_port(item.strip()) for item in forwarded_for.split(",") if item.strip()]
        if not hops:
            return None
        if not self.everybody:
            for host, port in reversed(hops):
                if not self._known(host[:64]):
                    return host, port
        return hops[0]


def _host_port(text: str) -> tuple[str, int]:
    """``1.2.3.4``, ``1.2.3.4:5``, ``[::1]:5`` or ``::1``; anything else is left as it is."""
    host, port = text, ""
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return text, 0
    return host, int(port or 0)


class ProxyHeaders:
    """ASGI: sets ``scheme`` and ``client`` of the scope."""

    def __init__(self, app: App, trust: Trust) -> None:
        self._app = app
        self._trust = trust

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            self._apply(scope)
        await self._app(scope, receive, send)

    def _apply(self, scope: Scope) -> None:
        # A TCP peer that nobody knows was gone before it was asked: trusted by nobody.
        host = (scope.get("client") or ("",))[0]
        if not self._trust.peer(None if is_unix(scope) else host):
            return
        proto, addresses = "", []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-proto":
                proto = value.decode("latin-1").strip()
            elif name == b"x-forwarded-for":
                addresses.append(value.decode("latin-1"))
        if proto in _SCHEMES:
            scheme = _SCHEMES[proto]
            scope["scheme"] = scheme.replace("http", "ws") if scope["type"] != "http" else scheme
        found = self._trust.client(",".join(addresses))
        if found is not None:
            scope["client"] = found


def is_unix(scope: Scope) -> bool:
    """A unix socket's server address is its path, without a port; older uvicorns give none."""
    server = scope.get("server")
    return server is None or server[1] is None


def apply_to_environ(environ: dict[str, Any], trust: Trust, *, unix: bool) -> None:
    """WSGI: sets wsgi.url_scheme, REMOTE_ADDR and REMOTE_PORT."""
    if not trust.peer(None if unix else environ.get("REMOTE_ADDR", "")):
        return
    scheme = _SCHEMES.get(environ.get("HTTP_X_FORWARDED_PROTO", "").strip())
    if scheme is not None:
        environ["wsgi.url_scheme"] = scheme
    found = trust.client(environ.get("HTTP_X_FORWARDED_FOR", ""))
    if found is not None:
        host, port = found
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = host
        environ.pop("REMOTE_PORT", None)
        if port:
            environ["REMOTE_PORT"] = str(port)

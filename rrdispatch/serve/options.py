"""What a runner is told about its app: ``RRDISPATCH_APP`` as one record with the defaults.

Unknown keys are ignored: the primary may be newer than the package that this interpreter has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """Names and meanings are those of the settings."""

    target: str = ""
    interface: str = "auto"
    factory: bool = False
    wait_ready: bool = False
    stop_signal: str = "TERM"
    drain_timeout: float = 25.0
    connection_batch: int = 1
    threads: int = 4
    access_log: bool = True
    log_level: str = "info"
    proxy_headers: bool = True
    forwarded_allow_ips: str | None = None
    root_path: str = ""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = None
    ws: str = "auto"
    http: str = "auto"
    loop: str = "auto"
    lifespan: str = "auto"
    limit_concurrency: int = 0
    timeout_keep_alive: float = 5.0
    max_requests: int = 0
    max_connection_requests: int = 0
    max_connection_age: float = 0.0

    @classmethod
    def from_app(cls, app: Mapping[str, Any]) -> Options:
        names = {item.name for item in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in app.items() if key in names})

    @property
    def tls(self) -> bool:
        """A key alone means it, too: to serve in the clear then would be a trap."""
        return bool(self.ssl_certfile or self.ssl_keyfile)

    @property
    def idle_grace(self) -> float:
        """In a drain: how long a connection without a request may stay.

        Its client may send one any moment until the keep-alive time that it knows has passed.
        """
        return min(self.timeout_keep_alive, self.drain_timeout / 2)

    @property
    def drain_deadline(self) -> float:
        """In a drain: when what is left is ended by us, before the primary does it by force."""
        return self.drain_timeout * 0.9

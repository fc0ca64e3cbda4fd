"""The settings of the app's server in a worker; a part of the one declaration in settings.py.

It must not know what a setting does.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrdispatch.checks import check_root_path, check_trusted
from rrdispatch.options import Kind, setting


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What uvicorn, waitress and our own parts of them are told."""

    threads: int = setting(
        4, Kind.INTEGER, "Threads of a WSGI app in each worker.",
        begins="The app's server", minimum=1, maximum=1024, app=True,
    )  # fmt: skip
    access_log: bool = setting(True, Kind.SWITCH, "A line per request on stdout.", app=True)
    log_level: str = setting(
        "info", Kind.TEXT, "The least important lines to show.",
        choices=("critical", "error", "warning", "info", "debug", "trace"), app=True,
    )  # fmt: skip
    proxy_headers: bool = setting(
        True, Kind.SWITCH, "Believe X-Forwarded-For and -Proto of trusted proxies.", app=True
    )
    forwarded_allow_ips: str | None = setting(
        None, Kind.TEXT, "Trusted proxies: addresses or networks with commas, or *. Else "
        "127.0.0.1 and ::1; peers of a unix socket are always trusted.",
        variables=("FORWARDED_ALLOW_IPS",), optional=True, check=check_trusted, app=True,
    )  # fmt: skip
    root_path: str = setting(
        "", Kind.TEXT, "The path the app is mounted at.", check=check_root_path, app=True
    )
    ssl_certfile: str | None = setting(
        None, Kind.PATH, "TLS certificate, PEM.", optional=True, app=True
    )
    ssl_keyfile: str | None = setting(
        None, Kind.PATH, "TLS key, if it is not in the certificate's file.", optional=True, app=True
    )
    ssl_keyfile_password: str | None = setting(
        None, Kind.TEXT, "The key's password; better said in the environment.", optional=True,
        app=True,
    )  # fmt: skip
    ws: str = setting("auto", Kind.TEXT, "uvicorn's WebSocket implementation.", app=True)
    http: str = setting("auto", Kind.TEXT, "uvicorn's HTTP implementation.", app=True)
    loop: str = setting("auto", Kind.TEXT, "uvicorn's event loop.", app=True)
    lifespan: str = setting(
        "auto", Kind.TEXT, "Run the ASGI lifespan events.", choices=("auto", "on", "off"), app=True
    )
    limit_concurrency: int = setting(
        0, Kind.INTEGER, "Answer 503 above so many connections in one worker; 0: no limit.",
        minimum=0, app=True,
    )  # fmt: skip
    timeout_keep_alive: float = setting(
        5.0, Kind.DURATION, "Close an idle keep-alive connection after this.", minimum=0, app=True
    )
    max_connection_requests: int = setting(
        0, Kind.INTEGER, "Close a connection after so many requests; 0: never.",
        minimum=0, app=True,
    )  # fmt: skip
    max_connection_age: float = setting(
        0.0, Kind.DURATION, "Close a connection that is older, after its request; 0: never.",
        minimum=0, app=True,
    )  # fmt: skip

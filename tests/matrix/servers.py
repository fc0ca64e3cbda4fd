"""The servers of the matrix, as declarations: how each is started, and what is known of it.

Words in braces are filled in: ``{python}`` an interpreter that has the server, ``{port}``,
``{folder}`` an empty one, ``{apps}`` the folder of the apps.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

APPS = Path(__file__).with_name("apps")
PYTHON = "{python}"
AT = "127.0.0.1:{port}"
CERTIFICATE = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
    "-keyout", "{folder}/key.pem", "-out", "{folder}/cert.pem", "-nodes", "-days", "2",
    "-subj", "/CN=localhost",
)  # fmt: skip


@dataclass(frozen=True)
class Tools:
    """What a run has: an interpreter with the servers, a folder for files."""

    python: str
    folder: Path


@dataclass(frozen=True)
class Entry:
    """One row. ``no`` holds what it is known not to do, by column, and why."""

    name: str
    command: tuple[str, ...]
    module: str = ""  # that the interpreter must have: a distribution's name
    program: str = ""  # or a program on PATH
    version: tuple[str, ...] = ()  # of the program
    install: str = ""
    config: str = ""  # a file of ``apps``, filled in as {folder}/CONFIG
    source: str = ""  # a C file of ``apps``, compiled to {folder}/NAME
    link: tuple[str, ...] = ()
    talk: str = "http"
    certificate: bool = False  # {folder}/cert.pem and {folder}/key.pem
    client: tuple[str, ...] = ()  # one of its own, which must end with 0
    env: Mapping[str, str] = field(default_factory=dict)
    no: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def filled(self, tools: Tools, port: int) -> list[str]:
        """The command for a port, its configuration written."""
        names = {"python": tools.python, "port": port, "folder": tools.folder, "apps": APPS}
        if self.config:
            text = (APPS / self.config).read_text(encoding="utf-8")
            (tools.folder / self.config).write_text(text.format(**names), encoding="utf-8")
        return [word.format(**names) for word in self.command]

    def build(self, tools: Tools) -> None:
        """CalledProcessError with the words of what failed."""
        if self.source:
            target = tools.folder / Path(self.source).stem
            command = ["cc", "-O1", "-o", str(target), str(APPS / self.source), *self.link]
            subprocess.run(command, check=True, capture_output=True, text=True)
        if self.certificate:
            command = [word.format(folder=tools.folder) for word in CERTIFICATE]
            subprocess.run(command, check=True, capture_output=True, text=True)

    def found(self, tools: Tools) -> str:
        """Its version, empty if it is not installed."""
        if self.module:
            ask = f"import importlib.metadata as m; print(m.version({self.module!r}))"
            return _said([tools.python, "-c", ask])
        if self.program:
            path = shutil.which(self.program)
            return _said([path, *self.version]) if path else ""
        return _said([tools.python, "-c", "import platform; print(platform.python_version())"])


def _said(command: Sequence[str]) -> str:
    """The last word that looks like a version; empty if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    words = (done.stdout or done.stderr).replace("v=", "").split() if done.returncode == 0 else []
    numbered = [word for word in words if any(part.isdigit() for part in word.split("."))]
    version = numbered[0] if numbered else ""
    return version.rpartition("/")[2].strip("v(),")


def _python(name: str, module: str, *command: str, **more: object) -> Entry:
    """A server that pip installs."""
    return Entry(
        name, (PYTHON, *command), module=module, install=f"pip install {module}", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _module(name: str, module: str, *command: str, **more: object) -> Entry:
    return _python(name, module, "-m", module, *command, **more)


SECURE = {"certificate": True, "talk": "tls"}
SECOND = {"certificate": True, "talk": "http2"}
SOCKET = {"talk": "websocket"}
KEYS = ("--certfile", "{folder}/cert.pem", "--keyfile", "{folder}/key.pem")
DJANGO = ("with_django.py", "runserver", AT)
FLASK = ("-m", "flask", "--app", "with_flask", "run", "--port", "{port}")
SANIC = ("with_sanic:app", "--host", "127.0.0.1", "--port", "{port}")
STATIC = (
    "No dynamic linker runs in a static program. It is refused at once; `--share-listener` is for "
    "those that take their sockets from systemd."
)
NGINX = ("nginx", "-e", "stderr", "-p", "{folder}", "-c")
UVICORN = ("apps:asgi", "--port", "{port}", "--log-level", "warning")
ENTRIES = (
    Entry("http.server", (PYTHON, "with_http_server.py", "{port}")),
    Entry("asyncio", (PYTHON, "with_asyncio.py", "{port}")),
    _python("uvloop", "uvloop", "with_asyncio.py", "{port}", "uvloop"),
    _module("uvicorn, asyncio", "uvicorn", *UVICORN, "--loop", "asyncio"),
    _module("uvicorn, uvloop", "uvicorn", *UVICORN, "--loop", "uvloop"),
    _module("gunicorn, sync", "gunicorn", "-b", AT, "apps:wsgi"),
    _module("gunicorn, gthread", "gunicorn", "-b", AT, "-k", "gthread", "apps:wsgi"),
    _module("gunicorn, asgi", "gunicorn", "-b", AT, "-k", "asgi", "apps:asgi"),
    _module("granian", "granian", "--interface", "asgi", "--port", "{port}", "apps:asgi"),
    _module("hypercorn", "hypercorn", "-b", AT, "apps:asgi"),
    _module("waitress", "waitress", f"--listen={AT}", "apps:wsgi"),
    _module("daphne", "daphne", "-p", "{port}", "apps:asgi"),
    _module("cheroot", "cheroot", "--bind", AT, "apps:wsgi"),
    _python("aiohttp", "aiohttp", "with_aiohttp.py", "{port}"),
    _python("tornado", "tornado", "with_tornado.py", "{port}"),
    _python("Twisted web", "twisted", "with_twisted.py", "{port}"),
    _module("sanic, one process", "sanic", *SANIC, "--single-process"),
    _module("sanic, its manager", "sanic", *SANIC),
    _python("gevent", "gevent", "with_gevent.py", "{port}"),
    _python("Flask's dev server", "flask", *FLASK),
    _python("Flask's, debug", "flask", *FLASK[:4], *FLASK[4:], "--debug"),
    _python("Django's dev server", "django", *DJANGO),
    _python("Django's, no reloader", "django", *DJANGO, "--noreload"),
    Entry(
        "Node http", ("node", "with_node.js", "{port}"), program="node",
        version=("--version",), install="apt-get install nodejs",
    ),
    Entry(
        "nginx", (*NGINX, "{folder}/nginx.conf"),
        program="nginx", version=("-v",), config="nginx.conf",
        install="apt-get install nginx-light",
    ),
    _module(
        "uvicorn, TLS", "uvicorn", *UVICORN, "--ssl-certfile", "{folder}/cert.pem",
        "--ssl-keyfile", "{folder}/key.pem", **SECURE,
    ),
    _module("gunicorn, TLS", "gunicorn", "-b", AT, "-k", "asgi", *KEYS, "apps:asgi", **SECURE),
    _module("hypercorn, HTTP/2", "hypercorn", "-b", AT, *KEYS, "apps:asgi", **SECOND),
    _module(
        "granian, HTTP/2", "granian", "--interface", "asgi", "--port", "{port}", "--http", "2",
        "--ssl-certificate", "{folder}/cert.pem", "--ssl-keyfile", "{folder}/key.pem", "apps:asgi",
        **SECOND,
    ),
    Entry(
        "Node http2", ("node", "with_node_http2.js", "{port}", "{folder}"), program="node",
        version=("--version",), install="apt-get install nodejs", certificate=True, talk="http2",
    ),
    Entry(
        "nginx, HTTP/2", (*NGINX, "{folder}/nginx_http2.conf"), program="nginx", version=("-v",),
        config="nginx_http2.conf", install="apt-get install nginx-light", certificate=True,
        talk="http2",
    ),
    _module("uvicorn, WebSocket", "uvicorn", *UVICORN, **SOCKET),
    _module("daphne, WebSocket", "daphne", "-p", "{port}", "apps:asgi", **SOCKET),
    _python(
        "tornado, WebSocket", "tornado", "with_tornado_websocket.py", "{port}", **SOCKET
    ),
    Entry(
        "redis-server",
        ("redis-server", "--port", "{port}", "--save", "", "--protected-mode", "no"),
        program="redis-server", version=("--version",), install="apt-get install redis-server",
        talk="redis",
        client=("redis-benchmark", "-p", "{port}", "-n", "2000", "-t", "set,get", "-q"),
    ),
    Entry(
        "C, a process each", ("{folder}/forking", "{port}"), source="forking.c", program="cc",
        version=("-dumpfullversion",), install="apt-get install gcc",
    ),
    Entry(
        "C, linked statically", ("{folder}/forking", "{port}"), source="forking.c", program="cc",
        version=("-dumpfullversion",), install="apt-get install gcc libc6-dev", link=("-static",),
        no={"starts": STATIC},
    ),
)  # fmt: skip


def chosen(names: Sequence[str] | None) -> list[Entry]:
    """By name, or all whose names begin so; SystemExit tells what there is."""
    if not names:
        return list(ENTRIES)
    found = [_named(name) for name in names]
    unknown = [name for name, entries in zip(names, found, strict=True) if not entries]
    if unknown:
        known = ", ".join(each.name for each in ENTRIES)
        raise SystemExit(f"no server {', '.join(unknown)}; there are: {known}")
    return [each for each in ENTRIES if any(each in entries for entries in found)]


def _named(name: str) -> list[Entry]:
    same = [each for each in ENTRIES if each.name == name]
    return same or [each for each in ENTRIES if each.name.startswith(name)]

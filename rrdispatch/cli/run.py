"""``rrdispatch run``: this process becomes the primary, in the foreground.

It gathers settings, says what is worth knowing at the start, and leaves the rest to the
supervisor. It must not know how anything is supervised.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from rrdispatch import __version__, apps, cpus
from rrdispatch.cli.asked import asked, only_one
from rrdispatch.cli.errors import say, warn
from rrdispatch.cli.options import SectionedCommand, said, setting_options
from rrdispatch.errors import BindError, ConfigError
from rrdispatch.settings import Settings, from_sources, load_env_file, misspelt

_EPILOG = (
    "Each setting is also RRDISPATCH_<NAME> in the environment and a key of rrdispatch.toml or of "
    "[tool.rrdispatch] in pyproject.toml; the command line is strongest. TIME: 0.2, 200ms, 3s, 1m."
)


@click.command("run", cls=SectionedCommand, epilog=_EPILOG)
@click.argument("target", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--config", metavar="FILE", help="Settings file, instead of looking for one here.")
@click.option("--only", metavar="NAME", help="Which app of a file of several.")
@setting_options
def command(config: str | None, only: str | None, **typed: Any) -> int:
    """Serve TARGET in the foreground until TERM or INT.

    TARGET is an app, MODULE:ATTRIBUTE: ASGI, WSGI, serve(listener), async def serve(listener). Or
    it is a script, or a program with its arguments after --, which listens by itself. Or it is a
    FILE that says all this: rrdispatch.toml, ecosystem.json, ecosystem.yaml.
    """
    found = only_one(asked(said(typed), config, only, os.environ), "rrdispatch run")
    if found.folder is not None:
        os.chdir(found.folder)
    return serve(gather(found.given, os.environ, found.config, *found.which()))


def gather(
    typed: Mapping[str, Any],
    environ: Mapping[str, str],
    config: str | None,
    section: str = "",
    profile: str = "",
) -> Settings:
    """The settings of this run; whatever can be refused is refused here, before anything starts."""
    settings = from_sources(said(typed), environ, apps.config(config, section, profile))
    if not settings.target:
        raise ConfigError(
            "TARGET is missing: there is nothing to run",
            hint="say it, app:app for example, or write it down: rrdispatch init app:app",
        )
    from rrdispatch.cluster import program

    check_files(settings)
    program.check(settings)
    if settings.cron_restart is not None:
        from rrdispatch.cluster import cron

        cron.require(settings.cron_restart, settings.sources["cron_restart"])
    return settings


def check_files(settings: Settings) -> None:
    """Every file that a setting names can be read: said now, not by some worker later."""
    for key in ("cwd", "env_file", "ssl_certfile", "ssl_keyfile"):
        path: str | None = getattr(settings, key)
        if path is None:
            continue
        source = settings.sources.get(key, key)
        if not os.path.exists(path):
            raise ConfigError(f"{source}: {path} does not exist", hint="check the path")
        if os.path.isdir(path) != (key == "cwd"):
            wanted = "a folder" if key == "cwd" else "a file"
            raise ConfigError(f"{source}: {path} is not {wanted}", hint="check the path")
        if not os.access(path, os.R_OK):
            raise ConfigError(f"{source}: {path} may not be read", hint="check its permissions")
    if settings.env_file is not None:
        load_env_file(settings.env_file)
    for path in settings.watch_paths if settings.watch else ():
        if not os.path.exists(os.path.join(settings.cwd or "", path)):
            source = settings.sources.get("watch_paths", "watch_paths")
            raise ConfigError(f"{source}: {path} does not exist", hint="check the path")


def serve(settings: Settings) -> int:
    """Be the primary of this app until the end; its exit code."""
    import asyncio

    from rrdispatch.cluster import output
    from rrdispatch.cluster.supervisor import Supervisor
    from rrdispatch.control import heirs, status
    from rrdispatch.control.announce import Announcer, both
    from rrdispatch.control.holders import tell_whose

    output.unblock()
    heirs.check(settings)
    count = cpus.count(settings.instances, cpus.detect(), settings.sources.get("instances", ""))
    talk = Talk(settings, count)
    for name, near in misspelt(os.environ).items():
        talk.warn(f"{name} in the environment is no setting", f"did you mean {near}?")
    for message, hint in warnings(settings, os.getpid()):
        talk.warn(message, hint)
    on_event = both(talk.event, Announcer().event)
    if settings.heir:
        return heirs.run_first(settings, on_event)
    try:
        listener = status.listen(settings)
        return asyncio.run(status.run(Supervisor(settings, on_event=on_event), listener))
    except BindError as error:
        tell_whose(error)
        raise


@dataclass
class Talk:
    """What the supervisor tells, in lines on stderr: as JSON where the workers' lines are."""

    settings: Settings
    count: cpus.Count
    began: float = field(default_factory=time.monotonic)

    def event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "listening":
            self._listening(event.get("listeners", ()))
        elif kind == "ready":
            self._say("ready", f"ready after {time.monotonic() - self.began:.1f} s")
        elif kind in ("warning", "unseen"):
            self.warn(str(event.get("message", "")), str(event.get("hint") or ""))
        elif event.get("message"):
            trace = str(event.get("traceback") or "").rstrip()
            if trace and self.settings.log_type != "json":
                say(trace)
            self._say(str(kind), str(event["message"]), slot=event.get("slot"), traceback=trace)

    def warn(self, message: str, hint: str = "") -> None:
        if self.settings.log_type == "json":
            self._say("warning", message, hint=hint)
        else:
            warn(message, hint)

    def _say(self, event: str, message: str, slot: object = None, **more: str) -> None:
        if self.settings.log_type != "json":
            say(f"{self.settings.name}: {message}")
            return
        from rrdispatch.cluster.logformat import iso

        told: dict[str, Any] = {}
        if self.settings.log_time:
            told["timestamp"] = iso(time.time_ns() // 1_000_000)
        told |= {"app_name": self.settings.name, "slot": slot, "type": "event", "event": event}
        say(json.dumps({**told, "message": message, **{k: v for k, v in more.items() if v}}))

    def _listening(self, listeners: Sequence[Mapping[str, Any]]) -> None:
        self._say("listening", f"{self.settings.target}, rrdispatch {__version__}")
        for listener in listeners:
            self._say("listening", f"listening on {shown(listener, self._scheme())}")
        self._say("listening", str(self.count))

    def _scheme(self) -> str:
        """Of the addresses; nothing for an app that is said to speak something of its own."""
        attribute = self.settings.target.rpartition(":")[2]
        if self.settings.interface == "serve" or attribute == "serve":
            return ""
        return "https://" if self.settings.ssl_certfile else "http://"


def shown(listener: Mapping[str, Any], scheme: str) -> str:
    """A listener's real address, as one would type it into a client."""
    address = listener["address"]
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[0], address[1]
    return f"{scheme}[{host}]:{port}" if ":" in host else f"{scheme}{host}:{port}"


def warnings(settings: Settings, pid: int) -> list[tuple[str, str]]:
    """(what, hint) of all that works but is hardly meant."""
    from rrdispatch.cluster import report

    found: list[tuple[str, str]] = []
    if pid == 1 and settings.listen and (port := _loopback_port(settings.bind)) is not None:
        what = "listening on loopback only as process 1: nothing outside of this container connects"
        found.append((what, f"--bind 0.0.0.0:{port}"))
    if told := report.fallback(settings):
        found.append(told)
    return found


def _loopback_port(bind: Sequence[str]) -> int | None:
    """The first port, if every address is a loopback one."""
    import ipaddress

    from rrdispatch.net.addresses import InetAddress, parse

    ports: list[int] = []
    for text in bind:
        address = parse(text)
        if not isinstance(address, InetAddress):
            return None
        try:
            loopback = ipaddress.ip_address(address.host).is_loopback
        except ValueError:
            loopback = address.host == "localhost"
        if not loopback:
            return None
        ports.append(address.port)
    return ports[0] if ports else None

"""systemd units, one per app: what is in them, where they belong, what is there by now.

The unit's process is the primary itself, in the foreground: systemd is told when it serves, when it
reloads, and which process is the main one after an heir followed. Starts nothing and asks nobody.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rrdispatch import cpus
from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError, ControlError
from rrdispatch.settings import Settings, from_values

MARK = "# Made by `rrdispatch startup`"
SLACK = 30.0  # seconds on top of what the app's own limits come to
SYSTEM = Path("/etc/systemd/system")
LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True)
class Manager:
    """The systemd that is to start the apps: the machine's, or a user's own."""

    user: bool
    folder: Path

    @property
    def wanted_by(self) -> str:
        return "default.target" if self.user else "multi-user.target"

    @property
    def systemctl(self) -> str:
        return "systemctl --user" if self.user else "systemctl"

    def path(self, name: str) -> Path:
        return self.folder / unit_name(name)


def manager(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Manager:
    """Root's apps are the machine's."""
    if (os.getuid() if uid is None else uid) == 0:
        return Manager(user=False, folder=SYSTEM)
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return Manager(user=True, folder=Path(base) / "systemd" / "user")


def unit_name(name: str) -> str:
    """An app's name needs no escaping in it (checks.check_name)."""
    return f"rrdispatch-{name}.service"


def lingers(user: str, folder: Path = LINGER) -> bool:
    """This user's systemd runs while nobody is logged in."""
    return (folder / user).exists()


def text(app: Definition, where: Manager) -> str:
    """The unit of this app, as it was started last."""
    settings = from_values({key: value for key, value in app.settings.items() if value is not None})
    rrdispatch = command()
    start = " ".join(quoted(word) for word in (*rrdispatch, "start", app.name, "--foreground"))
    reload = " ".join(quoted(word) for word in (*rrdispatch, "reload", app.name))
    lines = [
        f"{MARK}: after a change of the app, say it again.",
        "[Unit]",
        f"Description={_plain(app.name)}: {_plain(settings.target)} on every core (rrdispatch)",
        *([] if where.user else ["Wants=network-online.target", "After=network-online.target"]),
        "",
        "[Service]",
        "Type=notify",
        "# Workers, dispatcher and heirs are in its group; they say what they are to the primary.",
        "NotifyAccess=all",
        *_followed(settings),
        f"Environment={quoted('RRDISPATCH_HOME=' + str(statedir.home()), command=False)}",
        f"ExecStart={start}",
        "# Waits for the new code to prove itself; fails if the old code was taken back.",
        f"ExecReload={reload}",
        *_end(settings, app),
        "KillMode=mixed",
        f"TimeoutStartSec={start_limit(settings):g}",
        f"TimeoutStopSec={stop_limit(settings):g}",
        *_again(settings),
        "RestartSec=1",
        "# A worker that was killed for lack of memory is replaced by the primary.",
        "OOMPolicy=continue",
        "",
        "[Install]",
        f"WantedBy={where.wanted_by}",
    ]
    return "\n".join(lines) + "\n"


def _followed(settings: Settings) -> list[str]:
    if not settings.heir:
        return []
    return [
        "# A killed primary is followed by an heir (MAINPID): the service ends with its last",
        "# process. systemd before 250 does not know this key, and starts the service anew.",
        "ExitType=cgroup",
    ]


def _end(settings: Settings, app: Definition) -> list[str]:
    """systemd 252 does not wait for a main process that is no child of its own, as an heir is: it
    would kill all the moment after TERM.
    """
    if not settings.heir:
        return ["# TERM to the primary alone: it lets the workers finish what they have."]
    stop = " ".join(quoted(word) for word in (*command(), "stop", app.name))
    return [
        "# Waits for the workers to finish what they have; systemd would not wait for an heir.",
        f"ExecStop=-{stop}",
    ]


def _again(settings: Settings) -> list[str]:
    """2 and 8: a wrong setting, or it runs already outside of systemd: no use to try again.

    systemd 252 keeps what it once took for a failure: with an heir that served on, the end of the
    next ExecReload would end the service. So the primary's violent end is none, and whether the
    service is started anew depends on the end of its last process.
    """
    if not settings.heir:
        return ["Restart=on-failure", "RestartPreventExitStatus=2 8"]
    return [
        "# An heir follows: no failure of the service.",
        "SuccessExitStatus=SIGKILL SIGSEGV SIGBUS SIGABRT",
        "Restart=always",
        "RestartPreventExitStatus=0 2 8",
    ]


def start_limit(settings: Settings) -> float:
    """For ExecReload, too: a generation that is replaced worker by worker."""
    workers = cpus.count(settings.instances, cpus.detect()).workers
    rounds = math.ceil(workers / settings.batch) + 1
    each = settings.ready_timeout + settings.drain_timeout
    return math.ceil(rounds * each + settings.probation + SLACK)


def stop_limit(settings: Settings) -> float:
    """The primary kills what is left before systemd would."""
    return math.ceil(settings.shutdown_delay + settings.drain_timeout + SLACK / 3)


def command() -> list[str]:
    """Us, by a path that a service manager finds."""
    script = os.path.join(os.path.dirname(sys.executable), "rrdispatch")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "rrdispatch"]


def quoted(word: str, *, command: bool = True) -> str:
    """As systemd.syntax(7) reads it; specifiers are none, nor (in a command) variables."""
    found = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    found = found.replace("\n", "\\n").replace("\t", "\\t")
    if command:
        found = found.replace("$", "$$")
    plain = all(char.isalnum() or char in "/._-+=:@,%$" for char in found)
    return found if found and plain else f'"{found}"'


def _plain(words: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in words).replace("%", "%%")


def write(where: Manager, name: str, content: str) -> Path:
    """The whole file or the one before; ConfigError if one is there that is not ours."""
    path = where.path(name)
    check_ours(path)
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ControlError(f"{path} cannot be written: {error.strerror}") from error
    return path


def ours(where: Manager) -> list[str]:
    """Names of the apps that have a unit of ours there."""
    found = sorted(where.folder.glob("rrdispatch-*.service"))
    return [path.stem.removeprefix("rrdispatch-") for path in found if is_ours(path)]


def is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False


def check_ours(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not is_ours(path)):
        raise ConfigError(f"{path} was not made by us", hint="take it away if it is not needed")


def remove(where: Manager, name: str) -> list[Path]:
    """The unit, and the links that enabled it; what is gone now."""
    path = where.path(name)
    check_ours(path)
    gone = [*_links(where, path), path]
    try:
        for each in gone:
            each.unlink()
    except OSError as error:
        raise ControlError(f"{error.filename} cannot be deleted: {error.strerror}") from error
    return gone


def _links(where: Manager, path: Path) -> list[Path]:
    found = [folder / path.name for folder in sorted(where.folder.glob("*.wants"))]
    return [link for link in found if link.is_symlink() and link.resolve() == path.resolve()]

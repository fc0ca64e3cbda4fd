"""Where running apps are found: a private folder with a lock and a control socket for each.

``$RRDISPATCH_HOME``, else for root ``/var/lib/rrdispatch``, else XDG's state folder. Not ``/run``,
nor XDG's runtime folder: an app is known until it is deleted, over a logout and over the end of
the machine. Owns names, modes and the lock; must not know what is said on the socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rrdispatch.errors import ConfigError, ControlError

if TYPE_CHECKING:
    from rrdispatch.net.listeners import ListeningSocket

BACKLOG = 64
ATTEMPTS = 100  # to lock a folder that others delete
LOCK, CONTROL = "lock", "control.sock"
OUTPUT, LOGS = "primary.log", "logs"  # what a detached primary says; the workers' log files
ROOT_HOME, ROOT_LOGS = Path("/var/lib/rrdispatch"), Path("/var/log/rrdispatch")
RESERVED = frozenset((LOGS, "all"))  # no app's name


class NotRunningError(ControlError):
    """Nobody listens on the app's control socket."""


class SilentError(ControlError):
    """There is a primary, and it does not answer."""


def home(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """The folder of this user's apps; it need not exist."""
    said = environ.get("RRDISPATCH_HOME")
    if said:
        return Path(said).absolute()
    if (os.getuid() if uid is None else uid) == 0:
        return ROOT_HOME
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/", ".local/state")
    return Path(base) / "rrdispatch"


@dataclass(slots=True)
class Place:
    """An app's own: while ``lock`` is open, by whomever, nobody else takes the name."""

    folder: Path
    lock: int
    control: socket.socket
    status: ListeningSocket | None = None

    def release(self) -> None:
        """At the end of the app: its socket's file goes while the lock is still held.

        Not if the folder was deleted, by us for example: what has this path now is somebody else's.
        """
        if self.lock < 0:
            return
        try:
            if is_still_there(self.folder, self.lock):
                (self.folder / CONTROL).unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """Our copies only."""
        self.control.close()
        if self.status is not None:
            self.status.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def claim(name: str, base: Path | None = None) -> Place:
    """Takes the name for this app; ControlError if it runs already, ConfigError if the folder is
    not ours alone.
    """
    folder = (home() if base is None else base) / name
    directory, lock = hold(name, base)
    try:
        control = _listen(directory)
    except OSError as error:
        os.close(lock)
        raise _unusable(folder, error) from error
    finally:
        os.close(directory)
    return Place(folder, lock, control)


def hold(name: str, base: Path | None = None) -> tuple[int, int]:
    """The app's folder and its lock, taken: two fds that the caller closes.

    Whoever holds the lock may delete the folder (``remove``): then it was the lock of nothing, and
    the folder is made anew.
    """
    permit(name)
    folder = (home() if base is None else base) / name
    for attempt in range(ATTEMPTS):
        with ExitStack() as on_error:
            try:
                directory = open_private(folder)
            except ConfigError as error:
                if isinstance(error.__cause__, FileNotFoundError) and attempt < ATTEMPTS - 1:
                    continue
                raise
            on_error.callback(os.close, directory)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                lock = os.open(LOCK, flags, 0o600, dir_fd=directory)
                on_error.callback(os.close, lock)
                _lock(lock, name)
                if not is_still_there(folder, lock):
                    continue
            except FileNotFoundError:
                continue  # deleted between the two
            except OSError as error:
                raise _unusable(folder, error) from error
            on_error.pop_all()
            return directory, lock
    raise ControlError(f"{folder} is deleted again and again", hint="try again")


def permit(name: str) -> None:
    """ConfigError for what can be no app's name."""
    if name in RESERVED:
        raise ConfigError(f"{name!r} cannot be an app's name", hint="say another --name")


def is_still_there(folder: Path, lock: int) -> bool:
    """This lock is that folder's: nobody deleted it since."""
    try:
        return os.path.samestat(os.stat(folder / LOCK), os.fstat(lock))
    except FileNotFoundError:
        return False


def remove(folder: Path) -> None:
    """An app's folder with all that is in it; by whoever holds its lock. The lock's file last."""
    try:
        for entry in sorted(os.listdir(folder), key=lambda entry: entry == LOCK):
            os.unlink(folder / entry)
        os.rmdir(folder)
    except OSError as error:
        raise ControlError(
            f"{folder} cannot be deleted: {error.strerror}: {error.filename}",
            hint="what is in there is not ours: take it away, and delete again",
        ) from error


def names(base: Path | None = None) -> list[str]:
    """Of all apps that have a folder, running or not."""
    folder = home() if base is None else base
    try:
        found = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unusable(folder, error) from error
    return sorted(name for name in found if name not in RESERVED and not name.startswith("."))


def log_folder(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """The folder of the workers' log files, made if need be. Root's is where logs are looked for.

    Of the folder, not of the variable: a command without it and its primary, which has it, agree.
    """
    uid, base = os.getuid() if uid is None else uid, home(environ, uid)
    if uid != 0 or base != ROOT_HOME:
        folder = base / LOGS
        os.close(open_private(folder))
        return folder
    folder = ROOT_LOGS
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unusable(folder, error) from error
    _check(folder)
    return folder


def output_path(name: str, base: Path | None = None) -> Path:
    """Of a detached primary's own words."""
    return (home() if base is None else base) / name / OUTPUT


def open_output(name: str, base: Path | None = None) -> int:
    """Where a detached primary's own words go, for appending. An fd that the caller closes."""
    folder = (home() if base is None else base) / name
    directory = open_private(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    try:
        return os.open(OUTPUT, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise _unusable(folder, error) from error
    finally:
        os.close(directory)


def open_private(folder: Path) -> int:
    """The folder, made if need be: ours, mode 0700, no symlink. An fd that the caller closes."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        _check(folder.parent)
        _check(folder)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the state folder {folder} cannot be used: {error.strerror}",
        hint="set RRDISPATCH_HOME to a folder of your own",
    )


def _check(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{folder} is no folder", hint="set RRDISPATCH_HOME to another one")
    if found.st_uid != os.getuid():
        raise ConfigError(
            f"{folder} belongs to user {found.st_uid}, not to us",
            hint="set RRDISPATCH_HOME to a folder of your own",
        )
    if found.st_mode & 0o022:
        raise ConfigError(
            f"{folder} can be written to by others: whoever can, could speak for the app",
            hint=f"chmod 0700 {folder}",
        )


def _lock(lock: int, name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise ConfigError(f"the state folder has no locks: {error.strerror}") from error
        raise runs_already(name) from None


def runs_already(name: str) -> ControlError:
    return ControlError(f"{name} runs already", hint="stop it, or give this one another --name")


def _listen(directory: int) -> socket.socket:
    """By way of the folder's fd: a path of any length fits. What lay there is of a dead app."""
    try:
        os.unlink(CONTROL, dir_fd=directory)
    except FileNotFoundError:
        pass
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    control = socket.socket(socket.AF_UNIX, kind)
    try:
        os.fchmod(control.fileno(), 0o600)  # before bind: at no moment may others connect
        control.bind(f"/proc/self/fd/{directory}/{CONTROL}")
        control.listen(BACKLOG)
    except OSError:
        control.close()
        raise
    return control


def connect(name: str, base: Path | None = None, timeout: float = 5.0) -> socket.socket:
    """To an app's control socket; ControlError if it does not run."""
    folder = (home() if base is None else base) / name
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotRunningError(f"{name} does not run", hint=f"there is no {folder}") from error
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        control.settimeout(timeout)
        control.connect(f"/proc/self/fd/{directory}/{CONTROL}")
    except (ConnectionRefusedError, FileNotFoundError) as error:
        control.close()
        raise NotRunningError(f"{name} does not run", hint=f"rrdispatch start {name}") from error
    except OSError as error:  # EAGAIN: as many as may wait do so, and nobody is let in
        control.close()
        raise SilentError(f"{name} does not answer: {error.strerror}") from error
    finally:
        os.close(directory)
    return control

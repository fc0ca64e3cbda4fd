"""As whom the workers run (``--user``, ``--group``), and the command that becomes it.

Primary, dispatcher and logger stay who they are: so a worker can neither signal nor trace them, nor
write to logs, state and control socket; and reloads, heirs and log files go on as before.
"""

from __future__ import annotations

import grp
import marshal
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings

PROGRAM = str(Path(__file__).with_name("become.py"))


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers, and what is told of them."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary ones
    name: str
    home: str

    @classmethod
    def of(cls, told: Mapping[str, Any] | None) -> Identity | None:
        """Of what ``dataclasses.asdict`` and JSON made of one."""
        return None if told is None else cls(**{**told, "groups": tuple(told["groups"])})

    def variables(self) -> dict[str, str]:
        """What a login would set."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name} if self.home else {}


def identity(settings: Settings) -> Identity | None:
    """None: the workers are who we are. ConfigError if it cannot be, or not by us."""
    if settings.user is None and settings.group is None:
        return None
    user = _user(settings)
    gid = user.pw_gid if settings.group is None else _group(settings)
    wanted = user.pw_uid, gid
    if wanted == (os.getuid(), os.getgid()) and os.geteuid() != 0:
        return None
    if os.geteuid() != 0:
        source = _source(settings, "user" if settings.user is not None else "group")
        raise ConfigError(
            f"{source}: only root can run the workers as somebody else",
            hint="start it as root, or as that user without this setting",
        )
    known = settings.user is not None and bool(user.pw_name)
    groups = os.getgrouplist(user.pw_name, gid) if known else [gid]
    home = user.pw_dir if settings.user is not None else ""
    return Identity(user.pw_uid, gid, tuple(groups), user.pw_name or str(user.pw_uid), home)


def _user(settings: Settings) -> pwd.struct_passwd:
    """Ours if none is named; a number need not be in the list of users, if a group is named too."""
    text = settings.user
    try:
        if text is None:
            return pwd.getpwuid(os.getuid())
        return pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except KeyError:
        number = os.getuid() if text is None else int(text) if text.isdigit() else -1
        if number >= 0 and settings.group is not None:
            return pwd.struct_passwd(("", "", number, -1, "", "/", ""))
        hint = "say its --group, too" if number >= 0 else "a name or number of /etc/passwd"
        raise ConfigError(
            f"{_source(settings, 'user')}: there is no user {text!r}", hint=hint
        ) from None


def _group(settings: Settings) -> int:
    text = settings.group or ""
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        source = _source(settings, "group")
        hint = "a name of /etc/group, or a number"
        raise ConfigError(f"{source}: there is no group {text!r}", hint=hint) from None


def _source(settings: Settings, key: str) -> str:
    return settings.sources.get(key, key)


def command(become: int) -> list[str]:
    """Which becomes what it reads from descriptor ``become``; nothing of the app's environment or
    folder reaches it before.
    """
    return [sys.executable, "-I", "-S", PROGRAM, str(become)]


def environment() -> dict[str, str]:
    """Of that command: only what our own interpreter needed to be found."""
    return {key: value for key, value in os.environ.items() if key == "LD_LIBRARY_PATH"}


def write_told(told: dict[str, Any]) -> int:
    """For that command: a memfd, the caller's."""
    fd = os.memfd_create("rrdispatch-become", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            marshal.dump(told, file)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd

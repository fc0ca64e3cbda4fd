"""A JSON file of which, whatever happens, a whole one is left: the new one, or the one before.

A file is written beside its place, brought to disk, and renamed; the one before stays as FILE.old.
What is half written all the same (a disk that lied, an editor) is no whole object, as no part of
one is: a checksum would tell no more.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rrdispatch.errors import ControlError

T = TypeVar("T")

MOST = 64 << 20  # bytes that are read of a file
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, told: Mapping[str, Any]) -> None:
    """By one process at a time, whose affair the lock is. OSError, and all is as it was."""
    temporary = path.with_name(f".{path.name}")
    with open(os.open(temporary, _WRITE, 0o600), "w", encoding="ascii") as file:
        file.write(json.dumps(told, indent=1))
        file.flush()
        os.fsync(file.fileno())
    _keep(path)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _keep(path: Path) -> None:
    """If it is whole: a spoilt one must not take the place of the one before it."""
    try:
        json.loads(_content(path))
    except (OSError, ValueError, RecursionError):
        return
    link = path.with_name(f".{path.name}.old")
    with contextlib.suppress(OSError):  # a file system without links has no file before
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, previous(path))


def read(path: Path, made: Callable[[Any], T]) -> tuple[T, str] | None:
    """What ``made`` makes of it (or refuses), and what is wrong if it is of the one before.

    None if there is none; ControlError if neither can be used.
    """
    try:
        return made(json.loads(_content(path))), ""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        spoilt = error
    try:
        found = made(json.loads(_content(previous(path))))
    except (OSError, ValueError, TypeError, RecursionError):
        raise ControlError(f"{path} is spoilt: {spoilt}") from None
    return found, f"{path} is spoilt ({spoilt}): the one before it is used"


def _content(path: Path) -> bytes:
    with open(os.open(path, _READ), "rb") as file:
        return file.read(MOST)

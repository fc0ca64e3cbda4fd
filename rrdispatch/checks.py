"""What the texts of single settings must look like: target, name, instances, signal.

A check returns the text as it is kept or raises ``Wrong``. It knows no source of settings.
"""

from __future__ import annotations

import re
import signal

from rrdispatch.options import Wrong

MOST_WORKERS = 256
_COUNT = re.compile(r"max|physical|-?[1-9][0-9]{0,8}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GENERIC = frozenset(("app", "application", "asgi", "main", "server", "wsgi"))


def check_instances(text: str) -> str:
    """How many workers, in words; what it comes to is counted in ``cpus.py``."""
    text = text.strip()
    if not _COUNT.fullmatch(text):
        said = " (pm2's 0 is max)" if text == "0" else ""
        raise Wrong(
            f"{text!r} is not a number of workers",
            f"a number from 1, max, physical, or -K for K fewer than max{said}",
        )
    if text.lstrip("-").isdigit() and int(text) > MOST_WORKERS:
        raise Wrong(f"{text} workers are too many", f"{MOST_WORKERS} at most")
    return text


def check_target(text: str) -> str:
    module, colon, attribute = text.partition(":")
    hint = "MODULE:ATTRIBUTE, for example app:app or shop.main:application"
    if not colon and (text.endswith(".py") or "/" in text):
        hint = f"name the module and its attribute: {name_of(text)}:app, with --cwd for its folder"
    elif attribute.endswith("()"):
        hint = f"{module}:{attribute[:-2]} with --factory"
    names = [*module.split("."), *attribute.split(".")]
    if text and not all(name.isidentifier() for name in names):
        raise Wrong(f"{text!r} is not MODULE:ATTRIBUTE", hint)
    return text


def check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Wrong(f"{text!r} is not a name", "letters, digits, '.', '_' and '-', 64 at most")
    return text


def check_signal(text: str) -> str:
    name = text.strip().upper().removeprefix("SIG")
    known = {s.name.removeprefix("SIG") for s in signal.Signals} - {"KILL", "STOP", "CONT", "CHLD"}
    if name not in known:
        raise Wrong(f"{text!r} is not a signal that can stop a program", "for example TERM or INT")
    return name


def name_of(target: str) -> str:
    """``shop.main:app`` → ``shop``: the last part of the module that says something."""
    module = target.partition(":")[0].rpartition("/")[2].removesuffix(".py")
    parts = [re.sub(r"[^A-Za-z0-9_-]", "-", part).strip("_-") for part in module.split(".")]
    telling = [part for part in parts if part and part not in _GENERIC]
    return (telling or [part for part in parts if part] or ["app"])[-1][:64]

"""What the texts of single settings must look like: target, name, instances, signal.

A check returns the text as it is kept or raises ``Wrong``. It knows no source of settings.
"""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Sequence

from rrdispatch.errors import ConfigError
from rrdispatch.options import Wrong

MOST_WORKERS = 256
_COUNT = re.compile(r"max|physical|-?[1-9][0-9]{0,8}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCRIPT = re.compile(r"[^-\s].*\.(py|[cm]?js|tsx?|rb|php|pl|sh)(:.*)?")
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


def names_app(target: str) -> bool:
    """MODULE:ATTRIBUTE; anything else is a program, found when it is started."""
    module, colon, attribute = target.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def check_target(text: str) -> str:
    module, colon, attribute = text.partition(":")
    if not colon or any(map(str.isspace, text)) or names_app(text):
        return text
    hint = "MODULE:ATTRIBUTE, for example app:app or shop.main:application"
    if attribute.endswith("()"):
        hint = f"{module}:{attribute[:-2]} with --factory"
    elif "/" in module or module.endswith(".py"):
        hint = f"name the module: {name_of(text)}:{attribute}, with --cwd for its folder"
    raise Wrong(f"{text!r} is not MODULE:ATTRIBUTE", hint)


def port(text: str) -> int:
    """Of PORT in the environment."""
    if not re.fullmatch(r"[0-9]{1,5}", text.strip(), re.ASCII) or int(text) > 65535:
        raise ConfigError(f"PORT: {text!r} is not a port", hint="a number from 0 to 65535")
    return int(text)


def check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Wrong(f"{text!r} is not a name", "letters, digits, '.', '_' and '-', 64 at most")
    return text


def check_account(text: str) -> str:
    """Of a user or a group; whether there is one is known where the workers are started."""
    if not text.strip() or text != text.strip() or ":" in text:
        raise Wrong(f"{text!r} is no account", "a name, or a number; --user and --group apart")
    if text.isdigit() and int(text) >= (1 << 32) - 1:
        raise Wrong(f"{text} is no id", "0 to 4294967294")
    return text


def check_trusted(text: str) -> str:
    """Addresses and networks; a socket's path is trusted anyway, and uvicorn allows to name it."""
    for item in filter(None, map(str.strip, text.split(","))):
        if item == "*" or item.startswith(("/", "unix:")):
            continue
        try:
            ipaddress.ip_network(item, strict=False)
        except ValueError:
            hint = "for example 127.0.0.1,10.0.0.0/8, or * for everybody; no host names"
            raise Wrong(f"{item!r} is no address or network", hint) from None
    return text


def check_root_path(text: str) -> str:
    if text and (not text.startswith("/") or not text.isascii()):
        near = "/" + text.lstrip("/") if text.isascii() else "percent-encoded, in ASCII"
        raise Wrong(f"{text!r} is not the path of a URL", f"it begins with a slash: {near}")
    return text


def check_signal(text: str) -> str:
    name = text.strip().upper().removeprefix("SIG")
    known = {s.name.removeprefix("SIG") for s in signal.Signals} - {"KILL", "STOP", "CONT", "CHLD"}
    if name not in known:
        raise Wrong(f"{text!r} is not a signal that can stop a program", "for example TERM or INT")
    return name


def name_of(target: str, arguments: Sequence[str] = ()) -> str:
    """``shop.main:app`` → ``shop``: the last part of the module that says something; of a program
    its script's name, else its own.
    """
    if names_app(target):
        parts = target.partition(":")[0].removesuffix(".py").split(".")
    else:
        words = [*target.split(), *arguments]
        script = next((word for word in words if _SCRIPT.fullmatch(word)), *words[:1] or [""])
        parts = [script.partition(":")[0].rpartition("/")[2].partition(".")[0]]
    plain = [re.sub(r"[^A-Za-z0-9_-]", "-", part).strip("_-") for part in parts]
    telling = [part for part in plain if part and part not in _GENERIC]
    return (telling or [part for part in plain if part] or ["app"])[-1][:64]

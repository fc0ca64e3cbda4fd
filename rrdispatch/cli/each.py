"""One action on several apps: all selectors are checked first, then each app is done, and one that
fails stops no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

import click

from rrdispatch.cli.errors import say, tell, warn
from rrdispatch.control import definitions, selectors
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ConfigError, Error

AT_ONCE = 32  # apps


def each(
    texts: Sequence[str],
    action: Callable[[Target], str],
    *,
    slots: bool = False,
    at_once: str = "",
) -> int:
    """``action`` returns what is to be said; the exit code is that of a failure, if there is one.

    ``at_once``: nobody waits for another's drain; and what becomes of it after an interrupt.
    """
    targets = selectors.resolve(_names(texts), slots=slots)
    for spoilt in {target.definition.spoilt for target in targets} - {""}:
        warn(spoilt)
    if at_once:
        return _together(targets, action, at_once)
    return max(_in_turn(targets, action), default=0)


def _together(targets: Sequence[Target], action: Callable[[Target], str], interrupted: str) -> int:
    """A thread each, which an interrupt leaves behind: a pool's would be waited for."""
    import threading

    found: dict[str, int | BaseException] = {}
    free = threading.Semaphore(AT_ONCE)

    def work(target: Target) -> None:
        try:
            with free:
                found[target.shown] = one(target, action)
        except BaseException as error:
            found[target.shown] = error

    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in targets]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        left = [target.shown for target in targets if target.shown not in found]
        say(f"interrupted: {', '.join(left)}: {interrupted}")
        raise
    for result in found.values():
        if isinstance(result, BaseException):
            raise result
    return max((each for each in found.values() if isinstance(each, int)), default=0)


def _in_turn(targets: Sequence[Target], action: Callable[[Target], str]) -> Iterator[int]:
    for number, target in enumerate(targets, 1):
        try:
            yield one(target, action)
        except KeyboardInterrupt:  # noqa: PERF203 (the others are named)
            if rest := targets[number:]:
                say(f"interrupted: not begun: {', '.join(each.shown for each in rest)}")
            raise


def _names(texts: Sequence[str]) -> list[str]:
    """With the apps of a settings file in place of a FILE, as pm2 takes it."""
    found: list[str] = []
    for text in texts:
        found += _of_file(text) if "." in text else [text]
    return found


def _of_file(text: str) -> list[str]:
    """Those that the file names, and those that were started by it under another name."""
    from rrdispatch import files

    listed = definitions.all_of() if files.is_file(text) else []
    if not listed or text in (app.name for app in listed):
        return [text]
    from rrdispatch import apps

    file = apps.load(text)
    named = list(file.apps) if file is not None else []
    path = os.path.abspath(text)
    there = [app.name for app in listed if app.name in named or app.config == path]
    if not there:
        raise ConfigError(f"no app of {text} is in the list", hint=f"rrdispatch start {text}")
    for name in named:
        if name not in there:
            hint = f"rrdispatch start {text} --only {name}"
            warn(f"{name} of {text} is not in the list", hint)
    return there


def one(target: Target, action: Callable[[Target], str]) -> int:
    try:
        click.echo(f"{target.shown}: {action(target)}")
    except Error as error:
        if not re.search(rf"(?<![\w-]){re.escape(target.name)}(?![\w-])", error.message):
            error.message = f"{target.shown}: {error.message}"
        tell(error)
        return error.exit_code
    return 0

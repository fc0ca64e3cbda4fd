"""One action on several apps: all selectors are checked first, then each app is done, and one that
fails stops no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    """A thread each, which an interrupt leaves behind: a pool's would be waited for.

    None of them writes: who holds stdout's lock when the interpreter ends makes it abort.
    """
    import threading
    from queue import SimpleQueue

    done: SimpleQueue[tuple[Target, str | BaseException]] = SimpleQueue()
    free = threading.Semaphore(AT_ONCE)

    def work(target: Target) -> None:
        with free:
            try:
                done.put((target, action(target)))
            except BaseException as error:
                done.put((target, error))

    left = {target.shown: target for target in targets}
    codes = [0]
    try:
        for target in targets:
            threading.Thread(target=work, args=(target,), daemon=True).start()
        while left:
            target, outcome = done.get()
            del left[target.shown]
            codes.append(one(target, partial(_said, outcome)))
    except KeyboardInterrupt:
        say(f"interrupted: {', '.join(left)}: {interrupted}")
        raise
    return max(codes)


def _said(outcome: str | BaseException, _target: Target) -> str:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


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

"""Which apps are meant: id, name, NAME:SLOT, namespace, /regex/ or all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rrdispatch.control import definitions, statedir
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.errors import ConfigError

ANSWER = 3.0  # seconds, to say which workers there are


@dataclass(frozen=True)
class Target:
    """One app, or one worker of it."""

    definition: Definition
    slot: int | None = None

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def shown(self) -> str:
        return self.name if self.slot is None else f"{self.name}:{self.slot}"


def known() -> list[Definition]:
    """All apps; those that ``run --heir`` serves have no definition and no id."""
    found = definitions.all_of()
    names = {definition.name for definition in found}
    base = statedir.home()
    others = [
        Definition(name, wanted=RUN)
        for name in statedir.names()
        if name not in names and os.path.exists(base / name / statedir.CONTROL)
    ]
    return found + others


def resolve(texts: Sequence[str], *, slots: bool = False, gone: bool = False) -> list[Target]:
    """Each once, in the order they were named; ConfigError if one names nothing.

    ``slots``: the command can do it to one worker; ``gone``: also to one that is not there now.
    """
    apps = known()
    found: dict[tuple[str, int | None], Target] = {}
    for text in texts:
        for target in _matches(text, apps):
            if target.slot is not None and not slots:
                raise ConfigError(
                    f"{text}: this is done to whole apps, not to one worker",
                    hint=f"name the app: {target.name}",
                )
            found.setdefault((target.name, target.slot), target)
    if not gone and any(target.slot is not None for target in found.values()):
        _check_slots(list(found.values()))
    return list(found.values())


def _check_slots(targets: Sequence[Target]) -> None:
    """Of those that run: of another nobody knows how many it will have."""
    from rrdispatch.control.ask import ask_all

    named = dict.fromkeys(target.name for target in targets if target.slot is not None)
    told = ask_all(named, "stats", ANSWER)
    for target in targets:
        stats = told.get(target.name)
        if target.slot is None or not isinstance(stats, dict):
            continue
        there = sorted(slot["slot"] for slot in stats.get("slots", ()))
        if there and target.slot not in there:
            raise ConfigError(
                f"{target.shown}: {target.name} has no worker {target.slot}",
                hint=f"its workers are {target.name}:{there[0]} to {target.name}:{there[-1]}",
            )


def _matches(text: str, apps: Sequence[Definition]) -> list[Target]:
    matched = [Target(definition) for definition in _apps(text, apps)]
    if not matched and (parts := re.fullmatch(r"(.+):([0-9]{1,5})", text)):
        matched = [Target(app, int(parts[2])) for app in _apps(parts[1], apps)]
    if not matched:
        raise _nothing(text, apps)
    return matched


def _apps(text: str, apps: Sequence[Definition]) -> Iterator[Definition]:
    """A name before an id before a namespace, as in pm2."""
    if text == "all":
        yield from apps
        return
    if len(text) > 2 and text[0] == text[-1] == "/":
        pattern = _pattern(text[1:-1])
        yield from (app for app in apps if pattern.search(app.name))
        return
    tests: Sequence[Callable[[Definition], bool]] = (
        lambda app: app.name == text,
        lambda app: app.id >= 0 and str(app.id) == text,
        lambda app: app.id >= 0 and app.namespace == text,
    )
    for test in tests:
        if found := [app for app in apps if test(app)]:
            yield from found
            return


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"/{text}/ is no regular expression: {error}", hint="try all") from None


def _nothing(text: str, apps: Sequence[Definition]) -> ConfigError:
    if not apps:
        hint = "there are no apps: rrdispatch start TARGET"
        return ConfigError(f"{text!r} matches no app", hint=hint)
    words = [*(app.name for app in apps), *(app.namespace for app in apps if app.id >= 0)]
    import difflib

    near = difflib.get_close_matches(text, sorted(set(words)), n=3, cutoff=0.5)
    names = ", ".join(near) if near else ", ".join(app.name for app in apps[:8])
    asked = f"did you mean {names}?" if near else f"there are: {names}"
    return ConfigError(f"{text!r} matches no app", hint=asked)

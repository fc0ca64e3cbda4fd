"""A running app in the hands of its primary: its place in the state folder, and what is saved.

Every method that saves is quiet about a full disk: the service goes on, and what is on disk is what
it was before.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from rrdispatch.cluster import report
from rrdispatch.cluster.view import View
from rrdispatch.control import definitions, statedir
from rrdispatch.control.definitions import RUN, STOP, Definition
from rrdispatch.control.holders import tell_whose
from rrdispatch.control.statedir import Place
from rrdispatch.errors import ControlError, Error


@dataclass(slots=True)
class App:
    """``definition`` is None for ``rrdispatch run --heir``: of that nothing is saved."""

    place: Place
    definition: Definition | None = None
    fresh: bool = False  # it was never seen to serve: if it ends now, nothing stays of it
    failure: Error | None = None  # why its start is given up, before all has ended
    asked: bool = False  # for its end

    @classmethod
    def found(cls, place: Place) -> App:
        """As an heir finds it."""
        try:
            return cls(place, definitions.load(place.folder.name, place.folder.parent))
        except ControlError:
            return cls(place)  # spoilt: the service needs it least of all

    @property
    def wanted(self) -> bool:
        """Nobody asked for its end."""
        return not self.asked and (self.definition is None or self.definition.wanted == RUN)

    def begins(self) -> None:
        if self.definition is not None:
            self.definition.wanted, self.definition.error = RUN, None
            self.definition.started, self.definition.ended = time.time(), 0.0
            self.definition.restarts, self.definition.ends = 0, []
            self._save()

    def served(self) -> None:
        """From now on this is what is known of it."""
        self.fresh = False
        if self.definition is not None and self.definition.before is not None:
            self.definition.before = None
            self._save()

    def wants_end(self, wanted: str = STOP) -> None:
        """It is stopped by request; a signal, as at the end of the machine, is none.

        ``wanted`` RUN: it should run all the same, as after `rrdispatch kill`.
        """
        self.asked = True
        if wanted != RUN and self.definition is not None and self.definition.wanted != STOP:
            self.definition.wanted = STOP
            self._save()

    def scaled(self, workers: int) -> None:
        """The next start has as many."""
        if self.definition is not None:
            self.definition.typed["instances"] = str(workers)
            self.definition.settings["instances"] = str(workers)
            self._save()

    def lived(self, view: View, now: float) -> None:
        """What is to be told of its workers when nobody is left to ask; saved by ``ended``."""
        if self.definition is not None:
            self.definition.restarts = sum(slot.restarts for slot in view.slots.values())
            self.definition.ends = report.ends(view, now)

    def ended(self, error: Error | None = None) -> None:
        """While the lock is still held. Of a start that never served only the reason is kept."""
        error = error or self.failure
        tell_whose(error)
        if self.fresh:
            with contextlib.suppress(ControlError):
                statedir.remove(self.place.folder)
            return
        if self.definition is None:
            return
        if self.definition.before is not None:
            self.definition = _as_it_was(self.definition, self.definition.before)
        else:
            self.definition.ended = time.time()
        if error is not None:
            told = {"class": type(error).__name__, "message": error.message}
            self.definition.error = {**told, "hint": error.hint or ""}
        self._save()

    def _save(self) -> None:
        assert self.definition is not None
        try:
            definitions.save(self.definition, self.place.folder.parent)
        except ControlError:
            return


def _as_it_was(definition: Definition, before: dict[str, object]) -> Definition:
    """But not wanted any more, if somebody said so meanwhile."""
    try:
        found = definitions.made(before, definition.name)
    except (ValueError, TypeError):
        found = definition  # spoilt: there is nothing better
    found.id, found.before = definition.id, None
    if definition.wanted == STOP:
        found.wanted, found.ended = STOP, found.ended or time.time()
    return found

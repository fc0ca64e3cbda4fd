"""A View as plain data and back: what an heir reads of the primary that it follows. Pure.

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from rrdispatch.cluster.lifecycle import State, Wanted
from rrdispatch.cluster.view import (
    Failure,
    Finish,
    Operation,
    Reload,
    ReloadOptions,
    Rules,
    Slot,
    Start,
    Stop,
    View,
    Worker,
)

OPERATIONS: dict[str, type[Operation]] = {"start": Start, "reload": Reload, "stop": Stop}
FORGET_ABOVE = 4096  # rows of workers long gone
SLOT = tuple(item.name for item in dataclasses.fields(Slot))
WORKER = tuple(item.name for item in dataclasses.fields(Worker))
PLAIN = ("wanted", "generation", "last_generation", "degraded", "withdrawn", "finished")


class Freezer:
    """Makes JSON of views. Rows that are as they were last time cost nothing: with hundreds of
    workers each step changes one or two.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[type, int], tuple[tuple[Any, ...], str]] = {}

    def text(self, view: View) -> str:
        """All that the plan goes by."""
        told = {
            **{name: getattr(view, name) for name in (*PLAIN, "last_worker")},
            "rules": dataclasses.asdict(view.rules),
            "operation": _operation(view.operation),
            "queued": _operation(view.queued),
            "ended": [dataclasses.asdict(finish) for finish in view.ended],
        }
        slots = self.rows(view.slots, SLOT)
        workers = self.rows(view.workers, WORKER)
        return f'{json.dumps(told)[:-1]}, "slots": {slots}, "workers": {workers}}}'

    def rows(self, objects: Mapping[int, Any], names: Sequence[str]) -> str:
        """A list of objects of one class. Their values are replaced, never changed."""
        values_of = operator.attrgetter(*names)
        texts = []
        for key, one in objects.items():
            values = values_of(one)
            known = self._rows.get((type(one), key))
            if known is None or known[0] != values:
                text = json.dumps(dict(zip(names, values, strict=True)), default=_plain)
                known = self._rows[type(one), key] = (values, text)
            texts.append(known[1])
        if len(self._rows) > FORGET_ABOVE:
            self._rows.clear()
        return f"[{', '.join(texts)}]"


def _plain(value: object) -> object:
    """What JSON does not know: a state by its name, a failure by its fields."""
    if isinstance(value, (State, Wanted)):
        return value.value
    if isinstance(value, Failure):
        return dataclasses.asdict(value)
    raise TypeError(f"not for a state: {value!r}")


def thaw(data: dict[str, Any]) -> View:
    """The same view again."""
    queued = _thaw_operation(data["queued"])
    rules = {**data["rules"], "stop_exit_codes": tuple(data["rules"]["stop_exit_codes"])}
    view = View(
        Rules(**rules),
        **{name: data[name] for name in PLAIN},
        last_worker=data["last_worker"],
        operation=_thaw_operation(data["operation"]),
        queued=queued if isinstance(queued, Reload) else None,
        ended=[Finish(**{**told, "failure": _failure(told["failure"])}) for told in data["ended"]],
    )
    for told in data["slots"]:
        slot = Slot(**{**told, "last_failure": _failure(told["last_failure"])})
        slot.ends = [(at, reason) for at, reason in slot.ends]
        view.slots[slot.index] = slot
    for told in data["workers"]:
        kept = {**told, "state": State(told["state"]), "wanted": Wanted(told["wanted"])}
        view.workers[told["id"]] = Worker(**kept)
    return view


def _operation(operation: Operation | None) -> dict[str, Any] | None:
    """A reload's times by slot become pairs: JSON's keys are texts."""
    if operation is None:
        return None
    kind = next(name for name, kind in OPERATIONS.items() if isinstance(operation, kind))
    told = {"kind": kind, **dataclasses.asdict(operation)}
    if isinstance(operation, Reload):
        told["first_ready"] = list(operation.first_ready.items())
    return told


def _thaw_operation(told: dict[str, Any] | None) -> Operation | None:
    if told is None:
        return None
    values = {key: value for key, value in told.items() if key != "kind"}
    if "failure" in values:
        values["failure"] = _failure(values["failure"])
    if told["kind"] == "reload":
        values["options"] = ReloadOptions(**values["options"])
        values["first_ready"] = {int(slot): at for slot, at in values["first_ready"]}
    return OPERATIONS[told["kind"]](**values)


def _failure(told: dict[str, Any] | None) -> Failure | None:
    return None if told is None else Failure(**told)

"""A View as plain data and back: what an heir reads of the primary that it follows. Pure.

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import dataclasses
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
PLAIN = ("wanted", "generation", "last_generation", "degraded", "withdrawn", "finished")


def freeze(view: View) -> dict[str, Any]:
    """All that the plan goes by."""
    return {
        **{name: getattr(view, name) for name in (*PLAIN, "last_worker")},
        "rules": dataclasses.asdict(view.rules),
        "slots": [dataclasses.asdict(slot) for slot in view.slots.values()],
        "workers": [_worker(worker) for worker in view.workers.values()],
        "operation": _operation(view.operation),
        "queued": _operation(view.queued),
        "ended": [dataclasses.asdict(finish) for finish in view.ended],
    }


def thaw(data: dict[str, Any]) -> View:
    """The same view again."""
    queued = _thaw_operation(data["queued"])
    view = View(
        Rules(**data["rules"]),
        **{name: data[name] for name in PLAIN},
        last_worker=data["last_worker"],
        operation=_thaw_operation(data["operation"]),
        queued=queued if isinstance(queued, Reload) else None,
        ended=[Finish(**{**told, "failure": _failure(told["failure"])}) for told in data["ended"]],
    )
    for told in data["slots"]:
        slot = Slot(**{**told, "last_failure": _failure(told["last_failure"])})
        view.slots[slot.index] = slot
    for told in data["workers"]:
        kept = {**told, "state": State(told["state"]), "wanted": Wanted(told["wanted"])}
        view.workers[told["id"]] = Worker(**kept)
    return view


def _worker(worker: Worker) -> dict[str, Any]:
    told = {item.name: getattr(worker, item.name) for item in dataclasses.fields(Worker)}
    return {**told, "state": worker.state.value, "wanted": worker.wanted.value}


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

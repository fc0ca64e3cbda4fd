"""The states of a worker, as one table. Owns the names; must not know who causes a step.

``wanted`` (what the plan wants of a worker) is kept apart from ``state`` (what it is).
``docs/lifecycle.md`` shows this table; a test compares the two.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """What a worker is."""

    STARTING = "starting"  # spawned, has not said READY
    READY = "ready"  # is given connections
    PARKED = "parked"  # alive, given nothing: its successor is on probation
    DRAINING = "draining"  # given nothing; the dispatcher empties its queue
    STOPPING = "stopping"  # told to finish and exit
    KILLED = "killed"  # its group was sent SIGKILL
    DEAD = "dead"  # exited; what it had not taken is being given to others
    GONE = "gone"  # nothing of it is left


class Trigger(enum.Enum):
    """What makes a worker change its state."""

    READY = "ready"
    PARK = "park"
    UNPARK = "unpark"
    DRAIN = "drain"
    STOP = "stop"
    KILL = "kill"
    EXIT = "exit"
    REMOVE = "remove"


class Wanted(enum.Enum):
    """What the plan wants a worker to be."""

    SERVE = "serve"
    PARK = "park"
    GONE = "gone"


TABLE: Final[dict[tuple[State, Trigger], State]] = {
    (State.STARTING, Trigger.READY): State.READY,
    (State.STARTING, Trigger.DRAIN): State.DRAINING,
    (State.STARTING, Trigger.KILL): State.KILLED,
    (State.STARTING, Trigger.EXIT): State.DEAD,
    (State.READY, Trigger.PARK): State.PARKED,
    (State.READY, Trigger.DRAIN): State.DRAINING,
    (State.READY, Trigger.KILL): State.KILLED,
    (State.READY, Trigger.EXIT): State.DEAD,
    (State.PARKED, Trigger.UNPARK): State.READY,
    (State.PARKED, Trigger.DRAIN): State.DRAINING,
    (State.PARKED, Trigger.KILL): State.KILLED,
    (State.PARKED, Trigger.EXIT): State.DEAD,
    (State.DRAINING, Trigger.STOP): State.STOPPING,
    (State.DRAINING, Trigger.KILL): State.KILLED,
    (State.DRAINING, Trigger.EXIT): State.DEAD,
    (State.STOPPING, Trigger.KILL): State.KILLED,
    (State.STOPPING, Trigger.EXIT): State.DEAD,
    (State.KILLED, Trigger.EXIT): State.DEAD,
    (State.DEAD, Trigger.REMOVE): State.GONE,
}

LIVE: Final = frozenset({State.STARTING, State.READY, State.PARKED})
ALIVE: Final = LIVE | {State.DRAINING, State.STOPPING, State.KILLED}


class LifecycleError(AssertionError):
    """A step that the table does not have: a defect of the plan."""


def step(state: State, trigger: Trigger) -> State:
    """The state after ``trigger``; an absent pair raises."""
    try:
        return TABLE[state, trigger]
    except KeyError:
        raise LifecycleError(f"a worker that is {state.value} cannot {trigger.value}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram, for ``docs/lifecycle.md``."""
    lines = ["stateDiagram-v2", "    [*] --> starting"]
    lines += [f"    {old.value} --> {new.value}: {by.value}" for (old, by), new in TABLE.items()]
    return "\n".join([*lines, "    gone --> [*]"])

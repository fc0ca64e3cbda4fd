"""``cluster``: Node's names over the primary or the worker that this process is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from rrdispatch.errors import ControlError
from rrdispatch.node import child, stay, wire
from rrdispatch.node import setup as settings_of
from rrdispatch.node.emitter import Emitter
from rrdispatch.node.facts import Facts
from rrdispatch.node.primary import Pipes, Primary, Worker

SCHED_NONE, SCHED_RR = 1, 2
CONSTANTS = frozenset(("SCHED_NONE", "SCHED_RR", "Worker"))
POLICIES = {"none": SCHED_NONE, "rr": SCHED_RR}
EVENTS = frozenset(("setup", "fork", "online", "listening", "message", "disconnect", "exit"))


class Cluster(Emitter):
    """One per process."""

    EVENTS = EVENTS

    def __init__(self) -> None:
        super().__init__()
        said = os.environ.get("NODE_CLUSTER_SCHED_POLICY", "")
        self.scheduling_policy = POLICIES.get(said, SCHED_RR)
        self.settings = settings_of.Settings()
        self._primary = Primary(self.emit, self._settle)
        self._facts = Facts(self._primary.take, self._flow)
        self._engine: Any = None
        self._last_id = 0
        self._was_set_up = False
        self._when_empty: Callable[[], object] | None = None

    # ---- what this process is ------------------------------------------------------------------

    @property
    def is_worker(self) -> bool:
        return child.current() is not None

    @property
    def is_primary(self) -> bool:
        return not self.is_worker

    @property
    def worker(self) -> child.Worker | None:
        """This worker; None in the primary."""
        return child.current()

    @property
    def workers(self) -> dict[int, Worker]:
        """By id, from 1 on; without those that are leaving or have ended."""
        return self._primary.workers

    # ---- the primary's -------------------------------------------------------------------------

    def setup_primary(self, **options: Any) -> None:
        """What workers are from the next ``fork()`` on; the rest stays as it is."""
        self._check_primary("setup_primary")
        before = self.settings if self._was_set_up else settings_of.default()
        self.settings = settings_of.changed(before, options)
        self._was_set_up = True
        self._facts.put("setup", self.settings)

    def fork(self, env: Mapping[str, object] | None = None) -> Worker:
        """A new worker, starting; ``env`` is added to its environment."""
        self._check_primary("fork")
        check_alone()
        self.setup_primary()
        engine = self._started()
        self._last_id += 1
        worker = Worker(self, self._last_id)
        settings = self.settings
        pipes = Pipes(worker.process, list(settings.stdio or standard(settings.silent)))
        try:
            wanted = self._wanted(worker, settings, env or {}, pipes.fds)
            self._primary.add(worker)
            worker.process.pid = engine.call("spawn", wanted)
        except BaseException:
            self._primary.forget(worker)
            raise
        finally:
            pipes.close()
        stay.at_end_of_script(self.run)
        return worker

    def disconnect(self, then: Callable[[], object] | None = None) -> None:
        """Every worker gets nothing more and ends; ``then`` is called when all have."""
        self._check_primary("disconnect")
        everybody = list(self._primary.alive.values())
        self.leave([worker for worker in everybody if worker.is_connected()])
        if then is not None and not self._primary.when_gone(everybody, then):
            self._facts.put("call", then)

    def run(self) -> None:
        """Handlers are called here, until no worker lives. The end of the script does the same."""
        own = child.current()
        if own is not None:
            own.run()
            return
        while self._primary.alive or not self._facts.empty:
            self._facts.wait()
        self.close()

    def close(self) -> None:
        """After the last worker; ``fork()`` begins anew."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    # ---- what workers ask of it ----------------------------------------------------------------

    def send(self, worker: int, data: bytes) -> bool:
        return self._engine is not None and self._engine.send(worker, data) < wire.MUCH

    def leave(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.exited_after_disconnect = True
            self._primary.workers.pop(worker.id, None)
        self._post("leave", [worker.id for worker in workers])

    def let_go(self, worker: int) -> None:
        self._post("leave", [worker])

    def kill(self, worker: int, number: int) -> bool:
        return self._engine is not None and bool(self._engine.call("kill", worker, number))

    def hang_up(self, worker: int) -> None:
        self._post("hang_up", worker)

    # ---- for event loops -----------------------------------------------------------------------

    def facts_here(self) -> Facts:
        """Where this process' facts come from; who asks for them takes them."""
        own = child.current()
        if own is None:
            return self._facts
        own.take_over()
        return own.facts

    def call_when_empty(self, then: Callable[[], object]) -> bool:
        """Calls it when no worker lives; False if none does."""
        self._when_empty = then
        return bool(self._primary.alive)

    # ---- inside --------------------------------------------------------------------------------

    def _check_primary(self, what: str) -> None:
        if self.is_worker:
            raise ControlError(f"{what}() is the primary's, and this is a worker")

    def _started(self) -> Any:
        if self._engine is None:
            from rrdispatch.node.engine import Engine  # a worker never needs it

            if self.scheduling_policy not in (SCHED_NONE, SCHED_RR):
                raise ValueError(f"scheduling_policy cannot be {self.scheduling_policy!r}")
            shared = self.scheduling_policy == SCHED_NONE
            self._engine = Engine(self._facts.put, settings_of.app_settings(self.settings), shared)
        return self._engine

    def _wanted(
        self, worker: Worker, settings: settings_of.Settings, env: Mapping[str, object], fds: Any
    ) -> Any:
        from rrdispatch.node.hub import PIPE, PLACE, Wanted

        place = {"id": worker.id, "fd": PIPE, "uid": settings.uid, "gid": settings.gid}
        environment = {**os.environ, **{key: str(value) for key, value in env.items()}}
        environment[PLACE] = json.dumps(place)
        return Wanted(
            worker=worker.id,
            settings=settings_of.app_settings(settings),
            command=settings_of.command(settings),
            cwd=os.path.abspath(settings.cwd or os.getcwd()),
            environment=environment,
            stdio=fds,
        )

    def _post(self, what: str, *facts: Any) -> None:
        if self._engine is not None:
            self._engine.post(what, *facts)

    def _settle(self) -> None:
        self._post("heard")
        if self._when_empty is not None and not self._primary.alive:
            self._when_empty()

    def _flow(self, on: bool) -> None:
        self._post("resume" if on else "pause")


def check_alone() -> None:
    """A worker of another primary has its listeners from there: ours would be, too."""
    if "RRDISPATCH_SOCKET" in os.environ:
        raise ControlError(
            "fork(): this process was started by a worker, or is one of `rrdispatch run`",
            hint="start the script by itself: python SCRIPT",
        )


def standard(silent: bool) -> list[str]:
    """Of a worker's 0, 1, 2."""
    return ["pipe"] * 3 if silent else ["inherit"] * 3


cluster = Cluster()

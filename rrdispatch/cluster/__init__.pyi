from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from rrdispatch.node.child import Worker as OwnWorker
from rrdispatch.node.primary import Worker as Worker
from rrdispatch.node.setup import Settings

_Handler = TypeVar("_Handler", bound=Callable[..., object])

NAMES: frozenset[str]
SCHED_NONE: int
SCHED_RR: int
is_primary: bool
is_worker: bool
scheduling_policy: int
settings: Settings
worker: OwnWorker
workers: dict[int, Worker]

def fork(env: Mapping[str, object] | None = None) -> Worker: ...
def setup_primary(**options: Any) -> None: ...
def disconnect(then: Callable[[], object] | None = None) -> None: ...
def run() -> None: ...
@overload
def on(event: str) -> Callable[[_Handler], _Handler]: ...
@overload
def on(event: str, handler: _Handler) -> _Handler: ...
@overload
def once(event: str) -> Callable[[_Handler], _Handler]: ...
@overload
def once(event: str, handler: _Handler) -> _Handler: ...
def off(event: str, handler: Callable[..., object]) -> None: ...

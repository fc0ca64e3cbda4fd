"""A primary that can be followed by an heir: what it leaves, and how the heir begins.

Joins the state folder, the estate and the Supervisor; the same way serves the first primary and
every heir.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import rrdispatch
from rrdispatch._core.layout import AppTag, heir_command
from rrdispatch.cluster.estate import Estate
from rrdispatch.cluster.events import OnEvent
from rrdispatch.cluster.inherit import Inherited, inherit
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control import status
from rrdispatch.control.app import App
from rrdispatch.control.clients import Clients
from rrdispatch.control.statedir import Place, claim, home
from rrdispatch.errors import ConfigError, DispatcherError, Error
from rrdispatch.net.listeners import ListeningSocket
from rrdispatch.settings import Settings, from_values

CONTROL = 3  # where a dispatcher gives an heir its control socket
LAST_ANSWER = 15.0  # seconds: of a start whose service is over; on a busy machine it needs some
# Found where we were found, wherever the cwd has another package of that name.
_RUN = (
    "import sys; sys.path[0] = sys.argv[1]; from rrdispatch.cli.heir import main; sys.exit(main())"
)


def check(settings: Settings) -> None:
    """ConfigError where no heir can be had."""
    if settings.heir and os.getpid() == 1:
        raise ConfigError(
            "heir: process 1 cannot be followed: its end is the end of its container",
            hint="leave --heir out, or run under an init (docker run --init)",
        )


def command() -> bytes:
    """By which a dispatcher starts our heir."""
    root = str(Path(rrdispatch.__file__).resolve().parent.parent)
    arguments = [sys.executable, "-c", _RUN, root]
    try:
        return heir_command(sys.executable, "/", arguments, dict(os.environ))
    except ValueError as error:
        raise ConfigError(
            f"heir: {error}", hint="a smaller environment, or leave --heir out"
        ) from error


def run_first(settings: Settings, on_event: OnEvent) -> int:
    """The service from its beginning; its exit code."""
    app = App(claim(settings.name or "app"))
    try:
        supervisor = followed(settings, app.place, on_event)
    except BaseException:
        app.place.release()
        raise
    return asyncio.run(serve(supervisor, app))


def followed(settings: Settings, place: Place, on_event: OnEvent) -> Supervisor:
    """The first primary of a service; heirs follow it if the settings say so."""
    place.status = status.listen(settings)
    if not settings.heir:
        return Supervisor(settings, on_event=on_event)
    kept = {AppTag.CONTROL: [place.control.fileno()], AppTag.LOCK: _locks(place)}
    return Supervisor(settings, on_event=on_event, estate=Estate(command(), kept))


def _locks(place: Place) -> list[int]:
    """The lock, and what else is open as long as it is held: the status port's listener."""
    return [place.lock] if place.status is None else [place.lock, place.status.fileno()]


def run_heir(inherited: Inherited, settings: Settings, on_event: OnEvent) -> int:
    """The service from where the primary before was killed."""
    control, lock = inherited.kept[AppTag.CONTROL], inherited.kept[AppTag.LOCK]
    if not control or not lock:
        raise DispatcherError("neither lock nor control socket was kept")
    place = Place(home() / (settings.name or "app"), lock[0], socket.socket(fileno=control[0]))
    place.control.setblocking(False)
    if len(lock) > 1:
        place.status = ListeningSocket(fileno=lock[1])
        place.status.setblocking(False)
    kept = {AppTag.CONTROL: control, AppTag.LOCK: lock}
    estate = Estate(command(), kept, inherited.vault)
    supervisor = Supervisor(settings, on_event=on_event, estate=estate, inherited=inherited)
    return asyncio.run(serve(supervisor, App.found(place)))


def take_over() -> tuple[Inherited, Settings]:
    """What this process, started by a dispatcher as an heir, inherits."""
    found = inherit(socket.socket(fileno=CONTROL))
    return found, from_values(found.state["fixed"]["settings"])


async def serve(
    supervisor: Supervisor,
    app: App,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """With its control socket; the name is free again only when all has ended.

    ``meanwhile`` goes on beside it, until the service has ended.
    """
    service = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        await asyncio.sleep(0)  # the loop's turn: run() makes everything in one go
        clients = None if service.done() else Clients(app.place.control, supervisor, app)
        beside = asyncio.ensure_future(meanwhile()) if meanwhile and clients else None
        listener = app.place.status if clients is not None else None
        try:
            async with status.served(listener, supervisor):
                code = await service
        finally:
            if supervisor.operations.ran_out:
                app.wants_end()  # nobody need start it again
            if beside is not None:
                await asyncio.wait([beside], timeout=LAST_ANSWER)
            if clients is not None:
                app.lived(supervisor.view, supervisor.world.now())
                await clients.close()
    except Error as error:
        app.ended(error)
        app.place.release()
        raise
    except BaseException:
        app.place.close()  # ours only: the dispatcher has what the next heir needs
        raise
    app.ended()
    app.place.release()
    return code

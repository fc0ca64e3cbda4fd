"""What several apps are asked before one of them is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rrdispatch.errors import ConfigError, Error
from rrdispatch.net.addresses import InetAddress, parse
from rrdispatch.settings import Settings


def check(all_of: Sequence[Settings], cwd: str) -> None:
    """That no two listen on the same address, and that what they run is there: it is said of one
    app by its own primary, when it is too late for the others.
    """
    if len(all_of) == 1:
        return
    taken: dict[str, Settings] = {}
    for settings in all_of:
        for address in addresses(settings):
            other = taken.setdefault(address, settings)
            if other is not settings:
                raise ConfigError(
                    f"{other.name} and {settings.name} both listen on {address}",
                    hint='say a bind of its own for each: bind = "127.0.0.1:8001"',
                )
    for settings in all_of:
        find(settings, cwd)


def find(settings: Settings, cwd: str) -> None:
    """Its folder, interpreter and program; an app's module is for its worker to import."""
    from rrdispatch.cluster.launch import Origin, resolve

    try:
        resolve(settings, Origin(cwd, dict(os.environ)))
    except Error as error:
        error.message = f"{settings.name}: {error.message}"
        raise


def addresses(settings: Settings) -> set[str]:
    """Fixed ones that we open for it; a program that is preloaded says its own itself."""
    ours = settings.listen and not settings.is_preloaded
    watched = (settings.status_bind,) if settings.status_bind else ()
    found = map(parse, (*(settings.bind if ours else ()), *watched))
    return {str(each) for each in found if not isinstance(each, InetAddress) or each.port}

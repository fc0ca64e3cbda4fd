"""What only shows when several apps are looked at together."""

from __future__ import annotations

from collections.abc import Sequence

from rrdispatch.errors import ConfigError
from rrdispatch.net.addresses import InetAddress, parse
from rrdispatch.settings import Settings


def check(all_of: Sequence[Settings]) -> None:
    """ConfigError if two want to listen on the same address."""
    taken: dict[str, Settings] = {}
    for settings in all_of:
        for address in addresses(settings):
            other = taken.setdefault(address, settings)
            if other is not settings:
                raise ConfigError(
                    f"{other.name} and {settings.name} both listen on {address}",
                    hint='say a bind of its own for each: bind = "127.0.0.1:8001"',
                )


def addresses(settings: Settings) -> set[str]:
    """Fixed ones that we open for it; a program that is preloaded says its own itself."""
    if not settings.listen or (settings.is_program and not settings.share_listener):
        return set()
    found = map(parse, settings.bind)
    return {str(each) for each in found if not isinstance(each, InetAddress) or each.port}

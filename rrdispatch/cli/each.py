"""One action on several apps: all selectors are checked first, then each app is done, and one that
fails stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from rrdispatch.cli.errors import tell, warn
from rrdispatch.control import selectors
from rrdispatch.control.selectors import Target
from rrdispatch.errors import Error


def each(
    texts: Sequence[str],
    action: Callable[[Target], str],
    *,
    slots: bool = False,
    at_once: bool = False,
) -> int:
    """``action`` returns what is to be said; the exit code is that of a failure, if there is one.

    ``at_once``: nobody waits for another's drain.
    """
    targets = selectors.resolve(texts, slots=slots)
    for spoilt in {target.definition.spoilt for target in targets} - {""}:
        warn(spoilt)
    if at_once and len(targets) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(32, len(targets))) as pool:
            return max(pool.map(lambda target: one(target, action), targets))
    return max([one(target, action) for target in targets], default=0)


def one(target: Target, action: Callable[[Target], str]) -> int:
    try:
        click.echo(f"{target.shown}: {action(target)}")
    except Error as error:
        if target.name not in error.message:
            error.message = f"{target.shown}: {error.message}"
        tell(error)
        return error.exit_code
    return 0

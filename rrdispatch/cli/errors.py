"""How an error is told: ``error: …``, ``hint: …`` on stderr, and the exit code of its class.

It is the one place that turns exceptions into words and codes. It knows no command.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import click

from rrdispatch.errors import ConfigError, Error, ReloadError, StartError, TargetError
from rrdispatch.options import ELSEWHERE, nearest

INTERRUPTED = 130
NARROWEST = 20  # columns; 0 is a terminal that does not say
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

# For errors that come out of the app: it knows what is wrong, we know where to look.
_HINTS: dict[type[Error], str] = {
    TargetError: "this comes from the app's own code: mend it there; nothing was left running",
    StartError: "the app itself gave this reason: mend it there; nothing was left running",
    ReloadError: "the old workers serve on; mend the app and reload again",
}


def guarded(action: Callable[[], object]) -> int:
    """The exit code of ``action``; every expected error has been told."""
    try:
        result = action()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except Error as error:
        tell(error)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        tell(translate(error))
        return ConfigError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout left (`| head`). Python would complain again at its own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Error.exit_code
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        tell(Error(f"stdout cannot be written to: {error.strerror}"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Error.exit_code


def tell(error: Error) -> None:
    """What failed, the evidence if there is any, what to do: on stderr."""
    evidence = ""
    if isinstance(error, TargetError):
        evidence = error.traceback
    elif isinstance(error, ReloadError):
        evidence = error.output
    lines = [evidence.rstrip("\n")] if evidence.strip() else []
    lines.append(folded(f"error: {error.message}"))
    if hint := error.hint or _HINTS.get(type(error)):
        lines.append(folded(f"hint: {hint}"))
    say("\n".join(lines))


def warn(message: str, hint: str = "") -> None:
    say(folded(f"warning: {message}") + (f"\n{folded(f'hint: {hint}')}" if hint else ""))


def folded(text: str) -> str:
    """Broken between words where a terminal would break within one; a pipe gets whole lines."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return text
    if width < NARROWEST or all(len(line) <= width for line in text.split("\n")):
        return text
    import textwrap

    wrap = textwrap.TextWrapper(
        width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True, expand_tabs=False,
    )  # fmt: skip
    return "\n".join(wrap.fill(line) for line in text.split("\n"))


def say(text: str) -> None:
    """A line for people. A stderr that is gone or full must not stop a service."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (kept for the life of the process)


def translate(error: click.ClickException) -> ConfigError:
    """click's own errors in our words."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "rrdispatch"
    hint = f"try '{path} --help'"
    if isinstance(error, click.NoSuchOption):
        near = _meant(error.option_name, _flags(context))
        hint = f"did you mean {near}?" if near else hint
        if context is not None and context.info_name == "start":
            from rrdispatch.cli.pm2 import instead

            found = instead(error.option_name)
            hint = f"pm2 has it; here {found}" if found else hint
        return ConfigError(f"there is no option {error.option_name}", hint=hint)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return ConfigError(f"{error.param.human_readable_name} is missing", hint=hint)
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Option):
        told = error.message.rstrip(".").replace("valid integer range", "valid integer")
        return ConfigError(f"{max(error.param.opts, key=len)}: {told}", hint=hint)
    message = error.format_message().rstrip(".")
    return ConfigError(message[:1].lower() + message[1:], hint=hint)


def _meant(typed: str, flags: list[str]) -> str | None:
    """By the words alone: with their dashes, ``--host`` would be much like ``--out``."""
    words = {flag.lstrip("-"): flag for flag in flags if flag.startswith("--")}
    word = typed.lstrip("-")
    setting = ELSEWHERE.get(word.replace("-", "_"), "").replace("_", "-")
    if setting in words:
        return words[setting]
    near = nearest(word, words) if len(word) > 1 else None
    return words[near] if near is not None else None


def _flags(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    options = context.command.params
    return [flag for option in options for flag in (*option.opts, *option.secondary_opts)]

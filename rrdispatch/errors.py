"""The one exception tree. An error says what failed and to whom; ``hint`` says what to do.

Exit codes (``docs/exit-codes.md``) hang on the class, so that a script can tell a typing error
from an app that does not start.
"""

from __future__ import annotations


class Error(Exception):
    """Base of everything that rrdispatch raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(Error):
    """A wrong option, key, value or file. Nothing was started or changed."""

    exit_code = 2


class BindError(Error):
    """An address could not be listened on. ``holder``: the process that has it, if it is known."""

    exit_code = 3
    holder: int | None = None


class TargetError(Error):
    """The app could not be found, imported or recognised; ``traceback`` is the worker's, if any."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str | None = None, traceback: str = "") -> None:
        super().__init__(message, hint=hint)
        self.traceback = traceback


class MissingExtraError(TargetError):
    """A package of an extra is not installed in the interpreter that needs it."""


class StartError(Error):
    """The app was found but no worker became ready. ``output`` is the failed worker's last."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None, output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class ReloadError(Error):
    """The new generation was withdrawn; the old one serves.

    ``output`` is the failed worker's last output.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str | None = None, output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class DispatcherError(Error):
    """The dispatcher could not be started, or answered a request with an error."""

    exit_code = 7


class ControlError(Error):
    """A request to a primary failed: gone, timed out, or refused."""

    exit_code = 8


class ProtocolError(Error):
    """A message that breaks ``docs/protocol.md``."""

"""The settings of the workers' output; a part of the one declaration in ``settings.py``.

It must not know what a setting does.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrdispatch.options import Kind, setting


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Where the output goes, how a line looks there, and how much of it is kept."""

    log_file: str | None = setting(
        None, Kind.PATH, "A file for the workers' stdout and stderr.",
        begins="Logs", flags=("-l", "--log"), optional=True,
    )  # fmt: skip
    out_file: str | None = setting(
        None, Kind.PATH, "A file for their stdout alone.", flags=("-o", "--out", "--output"),
        optional=True,
    )  # fmt: skip
    error_file: str | None = setting(
        None, Kind.PATH, "A file for their stderr alone.", flags=("-e", "--error"), optional=True
    )
    merge_logs: bool = setting(
        True, Kind.SWITCH, "All workers in one file; else each slot has its own: NAME-SLOT.log."
    )
    log_time: bool | None = setting(
        None, Kind.SWITCH, "A time before each line; if not said: in files only.",
        flags=("--time",), optional=True,
    )  # fmt: skip
    log_type: str = setting(
        "text", Kind.TEXT, "How a line is written: behind its worker's name, as a JSON object, or "
        "just as it was printed.", choices=("text", "json", "raw"),
    )  # fmt: skip
    log_size: int = setting(
        10 << 20, Kind.SIZE, "A log file that would grow beyond this is rotated; 0: never.",
        minimum=0,
    )  # fmt: skip
    log_keep: int = setting(
        5, Kind.INTEGER, "So many rotated files are kept: FILE.1 is the newest.",
        minimum=1, maximum=1000,
    )  # fmt: skip

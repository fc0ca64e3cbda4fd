"""Writes the tables of docs/configuration.md from the declaration in rrdispatch/settings.py.

`make docs` runs it; tests/test_settings.py fails when the page and the declaration differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from rrdispatch import settings
from rrdispatch.cli.options import shown_default
from rrdispatch.options import Kind, Option, limits

PAGE = Path(__file__).parent / "configuration.md"
MARK = re.compile(r"(<!-- settings -->\n).*(<!-- end of settings -->)", re.DOTALL)


def tables() -> str:
    """A table per section: key, value, default, environment, meaning."""
    lines: list[str] = []
    for key, option in settings.OPTIONS.items():
        if option.begins:
            lines += ["", f"### {option.begins}", ""]
            lines += ["| key | value | default | environment | |", "|---|---|---|---|---|"]
        lines.append("| " + " | ".join(_cells(key, option)) + " |")
    return "\n".join(lines[1:]) + "\n\n"


def page(text: str) -> str:
    """The page's text with fresh tables between its marks."""
    return MARK.sub(lambda match: match[1] + "\n" + tables() + match[2], text)


def _cells(key: str, option: Option) -> list[str]:
    flags = "".join(f", `{flag}`" for flag in option.flags)
    default = shown_default(key)
    environment = ", ".join(f"`{name}`" for name in settings.variables(key))
    return [f"`{key}`{flags}", _value(option), f"`{default}`" if default else "", environment,
            option.help.replace("|", "\\|")]  # fmt: skip


def _value(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if option.kind is Kind.COUNT:
        return "`N`, `max`, `physical`, `-K`"
    spread = limits(option) if option.kind in (Kind.INTEGER, Kind.NUMBERS) else ""
    return f"{option.kind.value}, {spread}" if spread else option.kind.value


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

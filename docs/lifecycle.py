"""Draws the picture of docs/lifecycle.md from the table in rrdispatch/cluster/lifecycle.py."""

from __future__ import annotations

import re
from pathlib import Path

from rrdispatch.cluster.lifecycle import diagram

PAGE = Path(__file__).with_suffix(".md")
MARK = re.compile(r"(<!-- states -->\n).*(<!-- end of states -->)", re.DOTALL)


def page(text: str) -> str:
    """The page's text with a fresh picture between its marks."""
    return MARK.sub(lambda match: f"{match[1]}```mermaid\n{diagram()}\n```\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

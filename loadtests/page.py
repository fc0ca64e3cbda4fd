"""One page of HTML that needs nothing beside itself: pictures are inside."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right;
         vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
table.words td { text-align: left; vertical-align: top; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; } img { max-width: 100%; }
figcaption, .again { color: #555; font-size: 13px; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""


class Page:
    """Put together part by part."""

    def __init__(self, title: str, command: str) -> None:
        self.title = title
        self.command = command
        self.parts: list[str] = []

    def paragraphs(self, lines: list[str]) -> None:
        self.parts += [f"<p>{_inline(line)}</p>" for line in lines if line]

    def figure(self, title: str, path: Path) -> None:
        data = base64.b64encode(path.read_bytes()).decode()
        picture = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        caption = f"{escape(title)}. To make it again: <code>{escape(self.command)}</code>"
        self.parts.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")

    def table(self, title: str, rows: list[list[str]]) -> None:
        words = any(len(text) > 40 for row in rows[1:] for text in row)
        head, *body = [
            "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row)
            for tag, row in zip(["th", *["td"] * len(rows)], rows, strict=False)
        ]
        kind = ' class="words"' if words else ""
        lines = "".join(f"<tr>{row}</tr>" for row in body)
        inside = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
        self.parts.append(f'<h2>{escape(title)}</h2><div class="wide">{inside}</div>')

    def points(self, title: str, points: list[str]) -> None:
        inside = "".join(f"<li>{_inline(point.removeprefix('* '))}</li>" for point in points)
        self.parts.append(f"<h2>{escape(title)}</h2><ul>{inside}</ul>")

    def lines(self, title: str, lines: list[str]) -> None:
        self.parts.append(f"<h2>{escape(title)}</h2><pre>{escape(chr(10).join(lines))}</pre>")

    def text(self) -> str:
        body = "\n".join(self.parts)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head>\n"
            f"<body><h1>{escape(self.title)}</h1>\n{body}\n</body></html>\n"
        )


def _inline(line: str) -> str:
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(line))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", coded)

"""What the docs site has besides docs/: README.md and the like as pages, and the API (mkdocs hook).

Pages are written to be read in the repository; here their links are turned to where things lie on
the site. A link that leads nowhere is a warning, and `make docs-site` fails of it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {  # in the repository: on the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/index.md",
    "loadtests/README.md": "loadtests/index.md",
}
SHOWN = ("examples", "loadtests")  # files in there that pages lead to are on the site as they are
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"`[^`]*`")
MODULES = ("rrdispatch", "rrdispatch.aio")
NODE = {  # what `rrdispatch.cluster` is behind its names
    "rrdispatch.node.api.Cluster": (
        "is_primary", "is_worker", "worker", "workers", "setup_primary", "fork", "disconnect", "run"
    ),
    "rrdispatch.node.primary.Worker": ("send", "kill", "disconnect", "is_connected", "is_dead"),
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "api.md", content=api()))
    for source in sorted(linked(files)):
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    at = page.file.src_uri
    lines = markdown.split("\n")
    # A pipe in a table's code: GitHub wants a backslash, Python-Markdown shows it.
    lines = [
        CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line[:1] == "|" else line
        for line in lines
    ]
    return LINK.sub(lambda link: turned(link, at), "\n".join(lines))


def place_of(at: str) -> str:
    """Where a page of the site lies in the repository."""
    return next((source for source, target in PAGES.items() if target == at), f"docs/{at}")


def leads_to(target: str, at: str) -> str:
    """The link's target, as a path in the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(place_of(at)), target))


def turned(link: re.Match[str], at: str) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if not target or "://" in target:
        return link[0]
    there = leads_to(target, at)
    if (ROOT / there).is_dir():
        there += "/README.md"
    there = PAGES.get(there, there.removeprefix("docs/"))
    return f"[{text}]({os.path.relpath(there, os.path.dirname(at) or '.')}{anchor})"


def linked(files: Files) -> set[str]:
    """Files of the repository that pages lead to and that are no pages."""
    found = set()
    for file in files.documentation_pages():
        for _, target, _ in LINK.findall(file.content_string):
            there = leads_to(target, file.src_uri) if target and "://" not in target else ""
            if there.startswith(SHOWN) and there not in PAGES and (ROOT / there).is_file():
                found.add(there)
    return found


def api() -> str:
    """Every public name, where it is defined."""
    sys.path.insert(0, str(ROOT))
    parts = ["# API", "", "Everything else is not public, and may change at any time."]
    for module in map(importlib.import_module, MODULES):
        parts += ["", f"## {module.__name__}"]
        for name, place in module._PLACES.items():
            parts += ["", f"::: {place}.{name}"]
    parts += [
        "",
        "## rrdispatch.cluster",
        "",
        "Events, settings and what differs: [Node's cluster](node.md).",
    ]
    for place, names in NODE.items():
        members = f"      members: [{', '.join(names)}]"
        parts += ["", f"::: {place}", "    options:", members]
    return "\n".join(parts) + "\n"

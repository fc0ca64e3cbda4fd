"""Imports go only downwards (docs/design.md, Layers), and a few things have one user only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rrdispatch"

LAYERS = {
    "apps": 0, "checks": 0, "errors": 0, "mutants": 0, "options": 0, "files": 0, "settings": 0,
    "logsettings": 0, "serversettings": 0,
    "_core": 1, "cpus": 1, "ledger": 1,
    "net": 2,
    "dispatch": 3, "worker": 3,
    "cluster": 4,
    "serve": 5,
    "control": 6, "embed": 6, "node": 6, "aio": 6,
    "cli": 7, "monit": 7, "__main__": 7,
}  # fmt: skip

# Modules that only the named parts may import, wherever in the file they do it.
ONLY = {
    "rrdispatch._core._native": {"_core"},
    "cffi": {"_core"},
    "click": {"cli"},
    "prometheus_client": {"control"},
    "psutil": {"cpus", "net", "cluster"},
    "uvicorn": {"serve"},
    "waitress": {"serve"},
    "watchfiles": {"cluster"},
    "textual": {"monit"},
    "rich": {"monit"},
    "cronsim": {"cluster"},
    "tomllib": {"files"},
    "tomli": {"files"},
    "yaml": {"files"},
    "subprocess": {"control", "embed"},
    "multiprocessing": set(),
}  # fmt: skip

FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The name in ``LAYERS`` that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all that a file imports, at its top, in functions or for types."""
    package = ["rrdispatch", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # the lazy door: it names all layers and imports none
    own = LAYERS[part(path)]
    for name in imported(path):
        if name.startswith("rrdispatch."):
            other = name.split(".")[1]
            assert LAYERS.get(other, 0) <= own, f"{path} (layer {own}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_has_few_users(path: Path) -> None:
    for name in imported(path):
        for module, users in ONLY.items():
            if is_within(name, module):
                assert part(path) in users, f"{path} imports {name}"


def test_every_part_has_a_layer() -> None:
    parts = {part(path) for path in FILES} - {"__init__"}
    assert parts <= LAYERS.keys()


def test_the_reader_of_imports_sees_them_all(tmp_path: Path) -> None:
    """The test above is worth what this function is."""
    inside = PACKAGE / "cli" / "run.py"
    names = set(imported(inside))
    assert "rrdispatch.cluster.supervisor.Supervisor" in names  # inside a function
    assert "rrdispatch.cpus" in names  # from the package itself

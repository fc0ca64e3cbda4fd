"""The matrix in short, for the servers that are at hand, and that it can say no."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.matrix import table
from tests.matrix.columns import COLUMNS, SHORT, Cell, Row, Sizes, measure
from tests.matrix.servers import ENTRIES, PYTHON, Entry, chosen
from tests.shim.kit import shim_needed

USUAL = ("http.server", "asyncio", "uvicorn, uvloop", "waitress", "Node http")
ONCE = ("Node http",)  # a reload takes a while

LIAR = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for name, value in ("X-Pid", "1"), ("X-Peer", "192.0.2.1"), ("Content-Length", "0"):
            self.send_header(name, value)
        self.end_headers()
    def log_message(self, *_):
        pass
try:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
except OSError:
    sys.exit("something went wrong")
server.serve_forever()
"""


@shim_needed
@pytest.mark.parametrize("name", USUAL)
def test_a_server_does_what_it_is_declared_to_do(name: str) -> None:
    (entry,) = chosen([name])
    columns = tuple(each for each in COLUMNS if each != "reload" or name in ONCE)
    row = measure(entry, sys.executable, SHORT, columns)
    if not row.version:
        pytest.skip(f"no {name}: {entry.install}")
    assert not row.surprises
    assert set(row.cells) == set(columns)


@shim_needed
def test_a_server_that_lies_is_seen(tmp_path: Path) -> None:
    (tmp_path / "liar.py").write_text(LIAR)
    entry = Entry("liar", (PYTHON, str(tmp_path / "liar.py"), "{port}"))
    row = measure(entry, sys.executable, Sizes(12), ("even split", "peer", "port in use"))
    assert [each.partition(":")[0] for each in row.surprises] == [
        "even split", "peer", "port in use",
    ]  # fmt: skip
    assert "| **no**: " in table.markdown([row], sys.executable)


@shim_needed
def test_a_static_program_is_refused_as_declared() -> None:
    row = measure(ENTRIES[-1], sys.executable, SHORT)
    if not row.version:
        pytest.skip("no C compiler, or no static C library")
    assert not row.surprises
    assert "linked statically" in row.cells["starts"].seen


def test_a_no_that_is_none_any_more_is_a_surprise() -> None:
    entry = Entry("late", ("late",), no={"peer": "It was once."})
    assert Row(entry, "1", {"peer": Cell(True, "yes")}).surprises == ["peer: yes"]
    assert Row(entry, "1", {"peer": Cell(False, "nobody")}).surprises == []


def test_what_cannot_be_built_is_not_installed() -> None:
    row = measure(Entry("broken", ("x",), source="apps.py"), sys.executable, SHORT)
    assert not row.version
    assert not row.cells


def test_what_is_not_installed_is_a_row(tmp_path: Path) -> None:
    entry = Entry("none", ("none",), program="no-such-server", install="apt-get install none")
    row = measure(entry, sys.executable, SHORT)
    assert not row.cells
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_between_markers(page, table.markdown([row], sys.executable))
    text = page.read_text()
    assert "not installed: `apt-get install none`" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")

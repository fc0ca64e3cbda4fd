"""The session at the top of docs/commands.md, typed in a terminal as it stands there."""

from __future__ import annotations

import re
import shlex

from tests.cli.plane import APP, Plane
from tests.cli.test_list import in_a_terminal
from tests.harness import processes
from tests.harness.servers import ROOT

SAID = {
    "start": r"web: started, id 0: \d+ workers? on 127\.0\.0\.1:\d+",
    "list": r"│\s+0 │ web",
    "reload": r"web: reloaded in [\d.]+ s, generation 2",
    "scale": r"web: \d+ workers",
    "stop": r"web: stopped",
    "delete": r"web: deleted",
}


def session() -> list[list[str]]:
    page = (ROOT / "docs" / "commands.md").read_text()
    lines = re.findall(r"^    rrdispatch (.+?)(?:  .*)?$", page.partition("\n## ")[0], re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_every_line_of_it(plane: Plane) -> None:
    (plane.here / "app.py").write_text(APP)
    typed = session()
    assert {line[0] for line in typed} == set(SAID)
    for line in typed:
        seen = in_a_terminal(plane, 120, *line, PORT="0", NO_COLOR="1")
        assert re.search(SAID[line[0]], seen), (line, seen)
    assert processes.wait_gone(plane.living(), 5.0) == []
    assert plane.rows() == []

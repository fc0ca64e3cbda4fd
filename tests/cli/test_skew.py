"""Commands of this version, a primary of another: everything is answered in words, and it can be
stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import wait_until

# Says no more of itself than {stats}, and knows only what every version knows.
OTHER = """
import json, os, threading
from rrdispatch.control import definitions, statedir
place = statedir.claim("old")
definitions.save(definitions.Definition(
    "old", id=0, wanted="run", started=1.0, cwd=os.getcwd(),
    typed={{"target": "shop:app", "bind": ["127.0.0.1:0"]}},
    settings={{"target": "shop:app", "name": "old"}}))
place.control.setblocking(True)
print("up", flush=True)

def serve(client):
    for line in client.makefile("rb"):
        asked = json.loads(line)
        answer = {{"jsonrpc": "2.0", "id": asked["id"], "result": None}}
        if asked["method"] == "stats":
            answer["result"] = {{"primary_pid": os.getpid(), **{stats}}}
        elif asked["method"] not in ("ping", "stop", "kill"):
            del answer["result"]
            answer["error"] = {{"code": -32601, "message": f"no method {{asked['method']!r}}"}}
        client.sendall(json.dumps(answer).encode() + b"\\n")
        if asked["method"] in ("stop", "kill"):
            os._exit(0)

while True:
    threading.Thread(target=serve, args=(place.control.accept()[0],), daemon=True).start()
"""
LITTLE = {"name": "old", "state": "serving", "version": "0.0.1"}
MORE = {**LITTLE, "wanted": 1, "serving": 1, "slots": [{"slot": 0}], "workers": [{"pid": 1}]}
COMMANDS = [
    "show old", "show old --json", "env old", "pid old", "ping --ready old", "signal USR1 old",
    "signal USR1 old:0", "reset old", "scale old 2", "scale old +1", "reload old", "restart old:0",
    "logs old --no-follow", "start old", "resurrect", "monit --plain",
]  # fmt: skip


@pytest.fixture(params=[LITTLE, MORE], ids=["little", "more"])
def old(plane: Plane, request: pytest.FixtureRequest) -> Iterator[Plane]:
    text = OTHER.format(stats=request.param)
    with subprocess.Popen(
        [sys.executable, "-c", text], cwd=plane.here, env=plane.environment(), stdout=-1
    ) as primary:
        assert primary.stdout is not None
        assert primary.stdout.readline() == b"up\n"
        try:
            yield plane
        finally:
            primary.kill()


def test_each_command_says_what_it_can(old: Plane) -> None:
    for typed in COMMANDS:
        told = old.type(*typed.split())
        assert "Traceback" not in told.err, (typed, told)
        assert told.code in (0, 2, 8), (typed, told)
        assert told.code == 0 or "error: " in told.err, (typed, told)


def test_the_others_are_listed_all_the_same(old: Plane) -> None:
    old.start(name="new")
    shown: dict[str, dict[str, object]] = {}

    def all_answer() -> bool:  # who has no core for some seconds does not
        shown.update({row["name"]: row for row in json.loads(old.ok("list", "--json"))})
        return "not answering" not in [row["status"] for row in shown.values()]

    wait_until(all_answer, 60.0)
    assert shown["new"]["status"] == "online"
    assert shown["old"]["status"] in ("online", "other version")
    wait_until(lambda: str(shown["old"]["status"]) in old.ok("list", "--workers"), 60.0)


def test_it_can_be_stopped_and_started_in_this_version(old: Plane) -> None:
    assert old.ok("stop", "old") == "old: stopped\n"
    old.ok("start", "old")
    assert old.row("old")["status"] == "online"
    old.ok("delete", "old")
    assert processes.wait_gone(old.living(), 20.0) == []

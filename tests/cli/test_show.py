"""``show``: what an app is, how it does, how its workers ended, and nothing that is secret."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cli.facts import virtualenv
from rrdispatch.cli.secrets import MASK, masked_words, masked_words_of
from tests.cli.plane import APP, Plane
from tests.harness.servers import ROOT, wait_until


def told(plane: Plane, *more: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(plane.ok("show", "web", "--json", *more))
    return found[0]


def test_how_workers_ended_is_remembered_by_heirs_too(plane: Plane) -> None:
    (plane.here / "shop.py").write_text(
        "import sys\nprint('a last word', file=sys.stderr, flush=True)\n" + APP
    )
    row = plane.start("shop:app", "--drain-timeout", "17")
    log = plane.home / "logs" / "web.log"
    wait_until(lambda: log.read_text().count("a last word") == 2, 60.0)
    began = time.time()
    victim = row["workers"][1]["pid"]
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        now = plane.row()
        return (now["restarts"], now["serving"]) == (1, 2)

    wait_until(replaced, 60.0)
    os.kill(row["primary_pid"], signal.SIGKILL)
    wait_until(lambda: plane.row()["primary_pid"] not in (None, row["primary_pid"]), 60.0)
    found = told(plane)
    (end,) = found["ends"]
    assert (end["slot"], end["reason"]) == (1, "killed by SIGKILL")
    assert began - 60 < end["time"] < time.time() + 60
    assert found["cores"]["why"].startswith("2 workers: as asked")
    assert found["timeouts"]["drain_timeout"] == 17
    assert any("a last word" in line for line in found["last_errors"])
    assert Path(found["paths"]["folder"]) == plane.home / "web"
    said = plane.ok("show", "web")
    for what in ("worker 1: killed by SIGKILL", "drain 17 s", "a last word", "2 workers: as asked"):
        assert what in said, said
    documented = (ROOT / "docs" / "commands.md").read_text().partition("## JSON")[2]
    assert [key for key in found if f"`{key}`" not in documented] == []
    alone = json.loads(plane.ok("show", "web:0", "--json"))[0]
    assert {worker["slot"] for worker in alone["workers"]} == {0}


def test_what_is_over_keeps_its_restarts_until_they_are_reset(plane: Plane) -> None:
    script = plane.here / "seven.py"
    script.write_text(
        "import pathlib, time\n"
        "while not pathlib.Path('over').exists(): time.sleep(0.02)\n"
        "raise SystemExit(7)\n"
    )
    limits = ("--max-restarts", "1", "--min-uptime", "0", "--respawn-delay", "0")
    plane.ok("start", "seven.py", "--name", "web", "--no-listen", "-i", "1", *limits)
    (plane.here / "over").touch()  # not before it has served
    wait_until(lambda: plane.row()["status"] == "errored", 60.0)
    found = told(plane)
    assert found["restarts"] == plane.row()["restarts"] == 1
    assert [end["reason"] for end in found["ends"]] == ["exit code 7"] * 2
    assert found["error"]["message"].startswith("every slot died more than 1 times")
    assert "worker 0: exit code 7" in plane.ok("show", "web")
    assert plane.ok("reset", "web") == "web: reset\n"
    assert (told(plane)["restarts"], told(plane)["ends"]) == (0, [])


def test_a_stopped_app_shows_what_it_would_do(plane: Plane) -> None:
    plane.start()
    plane.ok("stop", "web")
    found = told(plane)
    assert (found["status"], found["cwd"], found["ends"]) == ("stopped", str(plane.here), [])
    assert found["paths"]["logs"]
    assert "stopped" in plane.ok("show", "web")


def test_secrets_of_a_command_line(plane: Plane) -> None:
    program = (sys.executable, "-c", "import time; time.sleep(1000)", "--password=hidden1")
    more = ("--token", "hidden2", "--url", "redis://me:hidden3@cache/0", "API_KEY=hidden4")
    options = ("--no-listen", "--min-uptime", "0", "--name", "web", "-i", "1")
    plane.ok("start", *options, "--", *program, *more)
    assert "hidden" not in plane.ok("show", "web", "--json") + plane.ok("show", "web")
    assert told(plane, "--show-secrets")["command"][-1] == "API_KEY=hidden4"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--password=x"], [f"--password={MASK}"]),
        (["--db-password", "x", "y"], ["--db-password", MASK, "y"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["DB_PASS=x", "PORT=1"], [f"DB_PASS={MASK}", "PORT=1"]),
        (["--password-file", "/run/x"], ["--password-file", "/run/x"]),
        (["--no-auth", "app.py"], ["--no-auth", "app.py"]),
        (["--password="], ["--password="]),
        (["a", "postgres://me:x@db/y"], ["a", f"postgres://me:{MASK}@db/y"]),
        (["token", "x"], ["token", "x"]),
    ],
)
def test_words(words: list[str], shown: list[str]) -> None:
    assert masked_words(words) == shown
    assert masked_words_of(" ".join(words)) == " ".join(shown)


def test_the_virtualenv_of_an_interpreter(tmp_path: Path) -> None:
    assert virtualenv(None) is None
    python = tmp_path / "bin" / "python"
    assert virtualenv(str(python)) is None
    (tmp_path / "pyvenv.cfg").touch()
    assert virtualenv(str(python)) == str(tmp_path)

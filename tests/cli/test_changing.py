"""reload, restart, scale, and what is asked of apps that run or don't."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.cli.plane import APP, Plane, finish, get
from tests.harness import processes
from tests.harness.servers import wait_until

QUICK = ("--probation", "0.3")


def pids(plane: Plane, name: str = "web") -> list[int]:
    return [int(line) for line in plane.ok("pid", name).split()]


def test_reload_is_done_when_it_returns(plane: Plane) -> None:
    before = plane.start()
    (plane.here / "shop.py").write_text(APP + "VERSION = 2\n")
    told = plane.type("reload", "web", *QUICK)
    assert told.code == 0, told
    assert told.out.startswith("web: reloaded in ")
    assert told.out.endswith(", generation 2\n")
    for slot in (0, 1):  # what happened meanwhile
        assert f"web:{slot} ready, pid " in told.err
        assert f"web:{slot} parked, pid {before['workers'][slot]['pid']}" in told.err
    after = plane.row()
    assert after["primary_pid"] == before["primary_pid"]
    assert after["listeners"] == before["listeners"]
    assert {get(after)["version"] for _ in range(4)} == {2}
    # The old ones have no more than their end before them.
    wait_until(lambda: len(pids(plane)) == 2, 30.0)
    assert not set(pids(plane)) & {worker["pid"] for worker in before["workers"]}


def test_a_reload_to_broken_code_is_rolled_back_and_says_why(plane: Plane) -> None:
    row = plane.start()
    (plane.here / "shop.py").write_text("raise RuntimeError('half a release')\n")
    told = plane.type("reload", "web")
    assert told.code == 6, told
    assert "RuntimeError: half a release" in told.err
    assert "the reload was rolled back" in told.err
    assert get(row)["version"] == 1


def test_no_wait_returns_before_probation(plane: Plane) -> None:
    plane.start()
    told = plane.type("reload", "web", "--no-wait", "--probation", "300s")
    assert (told.code, told.out) == (0, "web: reload begins\n")
    wait_until(lambda: plane.row()["state"] == "reloading", 30.0)
    plane.ok("stop", "web", "--now")


def test_a_reload_of_nothing_that_runs_says_what_to_do(plane: Plane) -> None:
    plane.start()
    plane.ok("stop", "web")
    told = plane.type("reload", "web")
    assert told.code == 8
    assert told.err == "error: web does not run\nhint: rrdispatch start web\n"


def test_restart_keeps_what_listens_so_nobody_is_refused(plane: Plane) -> None:
    before = plane.start()
    host, port = before["listeners"][0].split(":")
    over, refused, done = threading.Event(), [], []

    def connect() -> None:
        while not over.is_set():
            once()

    def once() -> None:
        try:
            with socket.create_connection((host, int(port)), 60) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                done.append(client.recv(100)[:12])
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        wait_until(lambda: bool(done or refused), 60.0, "somebody connects all the time")
        said = plane.ok("restart", "web")
    finally:
        over.set()
        thread.join()
    assert said.startswith("web: restarted in ")
    after = plane.row()
    assert (after["listeners"], after["restarts"]) == (before["listeners"], 0)
    assert not {w["pid"] for w in after["workers"]} & {w["pid"] for w in before["workers"]}
    assert refused == []
    assert set(done) == {b"HTTP/1.1 200"}


def test_restart_of_a_stopped_app_starts_it_and_leaves_it_alone(plane: Plane) -> None:
    plane.start()
    plane.ok("stop", "web")
    assert plane.ok("restart", "web") == "web: started\n"
    row = plane.row()
    assert row["status"] == "online"
    assert b"follows" not in (plane.home / "web" / "primary.log").read_bytes()  # not killed


def test_restart_sees_what_a_file_says_now(plane: Plane) -> None:
    file = plane.here / "rrdispatch.toml"
    file.write_text('target = "shop:app"\nbind = ["127.0.0.1:0"]\ninstances = 1\n')
    plane.ok("start", "--name", "web")
    before = plane.row()
    assert plane.ok("restart", "web").startswith("web: restarted in ")
    assert plane.row()["primary_pid"] == before["primary_pid"]
    file.write_text(
        'target = "shop:app"\nbind = ["127.0.0.1:0"]\ninstances = 1\nenv = {COLOUR = "blue"}\n'
    )
    assert plane.ok("restart", "web") == "web: restarted\n"
    row = plane.row()
    assert row["primary_pid"] != before["primary_pid"]
    assert get(row)["colour"] == "blue"


def test_restart_of_one_worker(plane: Plane) -> None:
    before = {worker["slot"]: worker["pid"] for worker in plane.start()["workers"]}
    plane.ok("restart", "web:1")
    wait_until(lambda: len(pids(plane)) == 2, 30.0)
    after = {worker["slot"]: worker["pid"] for worker in plane.row()["workers"]}
    assert after[0] == before[0]
    assert after[1] != before[1]
    pids_before = pids(plane)
    for words in (("restart", "web", "web:9"), ("show", "web:9"), ("pid", "web:9")):
        told = plane.type(*words)
        assert (told.code, told.out) == (2, "")
        assert told.err == (
            "error: web:9: web has no worker 9\nhint: its workers are web:0 to web:1\n"
        )
    assert pids(plane) == pids_before, "nothing was done"


def test_scale(plane: Plane) -> None:
    plane.start()
    assert plane.ok("scale", "web", "3") == "web: 3 workers\n"
    assert len(pids(plane)) == 3
    assert plane.ok("scale", "web", "-2") == "web: 1 worker\n"
    assert len(pids(plane)) == 1
    assert plane.ok("scale", "web", "+1") == "web: 2 workers\n"
    for wrong in ("0", "-2", "many", "+", "300"):
        told = plane.type("scale", "web", wrong)
        assert told.code == 2, told
        assert "hint: " in told.err
    assert len(pids(plane)) == 2
    plane.ok("scale", "web", "3")
    plane.ok("stop", "web")
    plane.ok("start", "web")
    assert plane.row()["serving"] == 3  # as it was left
    plane.ok("stop", "web")
    plane.ok("scale", "web", "1")
    plane.ok("start", "web")
    assert plane.row()["serving"] == 1


def test_scale_to_workers_that_cannot_is_a_failure(plane: Plane) -> None:
    (plane.here / "few.py").write_text(
        "import os\nassert os.environ['RRDISPATCH_SLOT'] == '0', 'only one'\nfrom shop import app\n"
    )
    plane.ok("start", "few:app", "-i", "1", "-b", "127.0.0.1:0", "--name", "web")
    told = plane.type("scale", "web", "2")
    assert told.code == 5, told
    assert "1 of 2 workers serve" in told.err


def test_pid_id_ping_reset(plane: Plane) -> None:
    row = plane.start()
    workers = [worker["pid"] for worker in row["workers"]]
    assert pids(plane) == workers
    assert plane.ok("pid", "web:1") == f"{workers[1]}\n"
    assert plane.ok("pid", "--primary", "web") == f"{row['primary_pid']}\n"
    assert plane.ok("id", "web") == "0\n"
    assert plane.ok("ping") == "web: pong\n"
    assert plane.ok("ping", "--ready", "0") == "web: ready\n"
    processes.kill(workers[0])
    wait_until(lambda: plane.row()["restarts"] == 1, 30.0)
    assert plane.ok("reset", "web") == "web: reset\n"
    assert plane.row()["restarts"] == 0
    plane.ok("stop", "web")
    assert plane.ok("pid") == ""
    told = plane.type("ping", "web")
    assert (told.code, "web does not run" in told.err) == (8, True)
    assert plane.type("ping").code == 8


def test_a_primary_that_stands_still_hangs_nobody(plane: Plane) -> None:
    row = plane.start()
    os.kill(row["primary_pid"], signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert plane.row(answer=3.0)["status"] == "not answering"
        told = plane.type("ping", "--timeout", "0.5", "web")
        assert (told.code, "web does not answer" in told.err) == (8, True)
        told = plane.type("reset", "web")
        assert told.code == 8
        assert "did not answer reset in time" in told.err
        assert time.monotonic() - began < 100
    finally:
        os.kill(row["primary_pid"], signal.SIGCONT)
    assert plane.ok("ping", "--timeout", "60", "web") == "web: pong\n"


def test_signal(plane: Plane) -> None:
    (plane.here / "heard.py").write_text(
        "import pathlib, signal\n"
        "signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path('heard').touch())\n"
        "from shop import app\n"
    )
    row = plane.start("heard:app")
    second = row["workers"][1]["pid"]
    assert plane.ok("signal", "SIGUSR2", "web:1") == f"web:1: sent to {second}\n"
    wait_until((plane.here / "heard").exists, 30.0)
    told = plane.type("signal", "USR9", "web")
    assert (told.code, "'USR9' is not a signal" in told.err) == (2, True)


def test_env_masks_what_looks_like_a_secret(plane: Plane) -> None:
    env = {"API_TOKEN": "hidden", "DATABASE_URL": "postgres://me:hidden@db/x", "COLOUR": "green"}
    plane.start("shop:app", "--env", "SESSION_SECRET=hidden", env=env)
    for _ in range(2):
        said = plane.ok("env", "web")
        assert "hidden" not in said
        assert "COLOUR=green\n" in said
        assert "DATABASE_URL=postgres://me:********@db/x\n" in said
        shown = plane.ok("env", "web", "--show-secrets")
        assert {"API_TOKEN=hidden", "SESSION_SECRET=hidden"} <= set(shown.splitlines())
        assert "hidden" not in plane.ok("show", "web") + plane.ok("list", "--json")
        plane.ok("stop", "web")


def test_show(plane: Plane) -> None:
    row = plane.start()
    said = plane.ok("show", "web")
    for what in (str(plane.here), row["listeners"][0], f"primary {row['primary_pid']}", "shop:app"):
        assert what in said
    plane.ok("stop", "web")
    assert "stopped" in plane.ok("describe", "0")


def test_kill_stops_all_at_once(plane: Plane) -> None:
    assert plane.ok("kill") == "no apps\n"
    plane.start(name="one")
    plane.start(name="two")
    assert sorted(plane.ok("kill").splitlines()) == ["one: stopped", "two: stopped"]
    assert processes.wait_gone(plane.living(), 60.0) == []
    assert {row["status"] for row in plane.rows()} == {"stopped"}


@pytest.mark.parametrize("command", ["stop", "restart", "reload", "delete", "reset", "id"])
def test_nothing_is_done_if_one_of_several_is_wrong(plane: Plane, command: str) -> None:
    (plane.home / "web").mkdir(parents=True, mode=0o700)
    plane.home.chmod(0o700)
    (plane.home / "web" / "app.json").write_text('{"format": 1, "id": 0}')
    told = plane.type(command, "web", "wbe")
    assert told.code == 2
    assert told.err == "error: 'wbe' matches no app\nhint: did you mean web?\n"
    assert (plane.home / "web" / "app.json").exists()


def test_stop_waits_for_what_is_under_way_and_now_does_not(plane: Plane) -> None:
    (plane.here / "slow.py").write_text(
        "import asyncio, pathlib\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http': return\n"
        "    pathlib.Path('begun').touch()\n"
        "    while not pathlib.Path('finish').exists(): await asyncio.sleep(0.02)\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'all of it'})\n"
    )
    host, port = plane.start("slow:app", "--drain-timeout", "100s")["listeners"][0].split(":")
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until((plane.here / "begun").exists, 30.0)
        stop = plane.begin("stop", "web")
        wait_until(lambda: plane.row()["status"] == "stopping", 30.0)
        other = plane.begin("stop", "web")  # waits too, and cuts nothing off
        wait_until(lambda: watches(other.pid), 30.0, "the second stop watches the primary")
        assert plane.row()["status"] == "stopping"
        assert stop.poll() is None
        Path(plane.here / "finish").touch()
        assert b"200 OK" in client.recv(4096)
    assert finish(stop).out == "web: stopped\n"
    assert finish(other).code == 0


def watches(pid: int) -> bool:
    """It has a pidfd."""
    try:
        links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return False
    return any("pidfd" in link for link in links)


def test_restart_of_an_app_with_an_exclusive_lock(plane: Plane) -> None:
    """An old worker is gone before its successor starts."""
    (plane.here / "lone.py").write_text(
        "import fcntl, os\n"
        "lock = open('lock' + os.environ['RRDISPATCH_SLOT'], 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "from shop import app\n"
    )
    before = {worker["pid"] for worker in plane.start("lone:app")["workers"]}
    plane.ok("restart", "web")
    row = plane.row()
    assert (row["status"], row["restarts"], row["serving"]) == ("online", 0, 2)
    assert not before & {worker["pid"] for worker in row["workers"]}

"""``start``: serving when it returns, detached; or an error, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
import venv
from pathlib import Path

import pytest

from tests.cli.plane import Plane, finish, get
from tests.harness import processes
from tests.harness.servers import wait_until

SLOW = "import time\ntime.sleep(300)\nfrom shop import app\n"
SECOND_FAILS = """
import os
if os.environ["RRDISPATCH_SLOT"] == "1":
    raise RuntimeError("the second one cannot")
from shop import app
"""


def nothing_left(plane: Plane, name: str) -> None:
    assert processes.wait_gone(plane.living(), 20.0) == []
    assert not (plane.home / name).exists()
    assert plane.rows() == []


def test_it_serves_when_start_returns(plane: Plane) -> None:
    told = plane.type("start", "shop:app", "--name", "web", "-i", "2", "-b", "127.0.0.1:0")
    assert told.code == 0, told
    assert told.out.startswith("web: started, id 0: 2 workers on 127.0.0.1:")
    row = plane.row()
    assert (row["status"], row["serving"], row["instances"]) == ("online", 2, 2)
    assert {worker["state"] for worker in row["workers"]} == {"ready"}
    assert get(row)["pid"] in [worker["pid"] for worker in row["workers"]]


def test_it_is_nobodys_child_and_has_no_terminal(plane: Plane) -> None:
    primary = plane.start()["primary_pid"]
    fields = Path(f"/proc/{primary}/stat").read_text().rpartition(")")[2].split()
    parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
    assert parent != os.getpid()
    assert session == primary
    assert terminal == 0
    assert os.readlink(f"/proc/{primary}/fd/0") == "/dev/null"
    for fd in (1, 2):
        path = Path(os.readlink(f"/proc/{primary}/fd/{fd}"))
        assert path == plane.home / "web" / "primary.log"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_stop_start_again_delete(plane: Plane) -> None:
    first = plane.start()
    assert plane.ok("stop", "web") == "web: stopped\n"
    assert processes.wait_gone(plane.living(), 20.0) == []
    row = plane.row()
    assert (row["status"], row["id"], row["primary_pid"]) == ("stopped", 0, None)
    assert plane.ok("stop", "web") == "web: was stopped already\n"
    plane.ok("start", "web", cwd=Path("/"))  # from anywhere: the app knows where it lives
    again = plane.row()
    assert (again["id"], again["status"]) == (0, "online")
    assert again["primary_pid"] != first["primary_pid"]
    assert get(again)["cwd"] == str(plane.here)
    assert plane.ok("delete", "0") == "web: deleted\n"
    nothing_left(plane, "web")


def test_the_callers_folder_environment_and_interpreter(plane: Plane) -> None:
    venv.create(plane.here / "env", with_pip=False, symlinks=True, system_site_packages=True)
    python = str(plane.here / "env" / "bin" / "python")
    env = {"VIRTUAL_ENV": str(plane.here / "env"), "COLOUR": "green"}
    site = [path for path in os.sys.path if path.endswith("site-packages")]  # type: ignore[attr-defined]
    env["PYTHONPATH"] = os.pathsep.join([plane.environment()["PYTHONPATH"], *site])
    told = get(plane.start(env=env))
    assert (told["cwd"], told["colour"], told["python"]) == (str(plane.here), "green", python)
    plane.ok("stop", "web")
    plane.ok("start", "web", env={"COLOUR": "red"})
    assert get(plane.row())["colour"] == "green"
    plane.ok("stop", "web")
    plane.ok("start", "web", "--update-env", env={"COLOUR": "red"})
    assert get(plane.row())["colour"] == "red"


def test_a_broken_import_is_told_and_leaves_nothing(plane: Plane) -> None:
    (plane.here / "broken.py").write_text("import shop\nraise RuntimeError('no such luck')\n")
    told = plane.type("start", "broken:app", "-b", "127.0.0.1:0")
    assert told.code == 4, told
    assert "RuntimeError: no such luck" in told.err
    assert "error: broken:app can't be imported" in told.err
    nothing_left(plane, "broken")


def test_one_that_is_never_ready_fails_within_its_time(plane: Plane) -> None:
    (plane.here / "slow.py").write_text("print('last words', flush=True)\n" + SLOW)
    began = time.monotonic()
    told = plane.type("start", "slow:app", "-b", "127.0.0.1:0", "--ready-timeout", "12s")
    assert told.code == 5, told
    assert time.monotonic() - began < 100  # the module alone would sleep for 300
    assert "not ready within 12 s" in told.err
    assert "last words" in told.err
    nothing_left(plane, "slow")


def test_one_worker_of_two_that_cannot_is_a_failure(plane: Plane) -> None:
    (plane.here / "half.py").write_text(SECOND_FAILS)
    limits = ("--max-restarts", "1", "--respawn-delay", "0.01")
    told = plane.type("start", "half:app", "-b", "127.0.0.1:0", "-i", "2", *limits)
    assert told.code == 5, told
    assert "1 of 2 workers became ready" in told.err
    assert "the second one cannot" in told.err
    nothing_left(plane, "half")


def test_a_port_in_use(plane: Plane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = plane.type("start", "shop:app", "-b", f"127.0.0.1:{port}")
    assert told.code == 3, told
    assert f"127.0.0.1:{port}" in told.err
    nothing_left(plane, "shop")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("nosuch.py",), 4, "no app, no file and no program"),
        ((), 2, "TARGET is missing"),
        (("shop:app", "--bnd", ":0"), 2, "did you mean --bind?"),
        (("shop:app", "--namespace", "a b"), 2, "--namespace: 'a b' is not a name"),
        (("shop:app", "--name", "logs"), 2, "'logs' cannot be an app's name"),
        (("shop:app", "--name", "all"), 2, "'all' cannot be an app's name"),
        (("shop:app", "--cwd", "nowhere"), 2, "nowhere does not exist"),
    ],
)
def test_what_is_refused(plane: Plane, arguments: tuple[str, ...], code: int, what: str) -> None:
    told = plane.type("start", *arguments)
    assert told.code == code, told
    assert what in told.err
    assert plane.living() == []
    assert plane.rows() == []
    assert list(plane.home.rglob("*.log")) == []


def test_two_at_once_are_one_app_and_one_clear_answer(plane: Plane) -> None:
    for _ in range(4):
        command = ("start", "shop:app", "--name", "web", "-i", "1", "-b", "127.0.0.1:0")
        both = [plane.begin(*command), plane.begin(*command)]
        told = sorted((finish(each) for each in both), key=lambda each: each.code)
        assert [each.code for each in told] == [0, 8], told
        assert told[1].err == (
            "error: web runs already\nhint: stop it, or give this one another --name\n"
        )
        row = plane.row()
        assert (row["status"], row["serving"]) == ("online", 1)
        assert len(plane.rows()) == 1
        plane.ok("delete", "web")
        nothing_left(plane, "web")


def test_a_start_whose_command_is_killed_is_taken_back(plane: Plane) -> None:
    (plane.here / "slow.py").write_text(SLOW)
    command = plane.begin("start", "slow:app", "-b", "127.0.0.1:0")
    try:
        wait_until(lambda: any("RRDISPATCH_SLOT" in env(p) for p in plane.living()), 60.0)
        wait_until(lambda: plane.row("slow")["status"] == "launching", 60.0)
    finally:
        command.kill()
        finish(command)
    wait_until(lambda: not plane.living(), 60.0, "all of it is gone")
    nothing_left(plane, "slow")


def env(process: processes.Process) -> dict[str, str]:
    return processes.environment(process.pid)


def test_a_start_that_fails_of_an_app_that_was_there_keeps_it(plane: Plane) -> None:
    plane.start()
    plane.ok("stop", "web")
    (plane.here / "shop.py").write_text("raise RuntimeError('worse than before')\n")
    told = plane.type("start", "web")
    assert told.code == 4, told
    row = plane.row()
    assert row["status"] == "errored"
    assert "worse than before" in row["error"]["message"]
    assert plane.ok("stop", "web") == "web: was stopped already\n"
    assert plane.row()["status"] == "stopped"


def test_ids_are_small_unique_and_stay(plane: Plane) -> None:
    one, two = plane.start(name="one"), plane.start(name="two")
    assert (one["id"], two["id"]) == (0, 1)
    plane.ok("stop", "all")
    plane.ok("start", "1")
    assert plane.row("two")["id"] == 1
    plane.ok("delete", "one")
    assert plane.start(name="three")["id"] == 2  # 0 may still be in somebody's script
    plane.ok("delete", "all")
    assert plane.start(name="four")["id"] == 0


def test_a_killed_primary_is_followed_and_the_app_is_the_same_one(plane: Plane) -> None:
    before = plane.start()
    processes.kill(before["primary_pid"])
    wait_until(lambda: processes.state(before["primary_pid"]) in ("", "Z"), 60.0)
    wait_until(lambda: plane.row()["status"] == "online", 60.0)
    after = plane.row()
    assert after["id"] == before["id"]
    assert after["primary_pid"] != before["primary_pid"]
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
    assert plane.ok("stop", "web") == "web: stopped\n"
    assert processes.wait_gone(plane.living(), 20.0) == []


def test_all_of_it_killed(plane: Plane) -> None:
    plane.start()
    plane.close()
    assert processes.wait_gone(plane.living(), 20.0) == []
    assert plane.row()["status"] == "killed"
    plane.ok("start", "web")
    assert plane.row()["status"] == "online"


def test_a_program_that_listens_by_itself(plane: Plane) -> None:
    command = "import time; time.sleep(1000)"
    options = ("--no-listen", "-i", "1", "--name", "job")
    plane.ok("start", *options, "--", "python3", "-c", command)
    assert (plane.row("job")["mode"], plane.row("job")["status"]) == ("program", "online")


def test_what_a_file_says_counts_at_each_start(plane: Plane) -> None:
    file = plane.here / "rrdispatch.toml"
    file.write_text('target = "shop:app"\nbind = ["127.0.0.1:0"]\ninstances = 1\n')
    plane.ok("start")
    assert plane.row("shop")["serving"] == 1
    plane.ok("stop", "shop")
    file.write_text('target = "shop:app"\nbind = ["127.0.0.1:0"]\ninstances = 2\n')
    plane.ok("start", "shop", cwd=Path("/"))
    assert plane.row("shop")["serving"] == 2


def test_an_interrupted_start_is_taken_back(plane: Plane) -> None:
    (plane.here / "slow.py").write_text(SLOW)
    command = plane.begin("start", "slow:app", "-b", "127.0.0.1:0")
    wait_until(lambda: any("RRDISPATCH_SLOT" in env(p) for p in plane.living()), 60.0)
    command.send_signal(signal.SIGINT)
    assert finish(command).code == 130
    nothing_left(plane, "slow")


def test_one_that_is_stopped_before_it_serves_says_so(plane: Plane) -> None:
    (plane.here / "slow.py").write_text(SLOW)
    command = plane.begin("start", "slow:app", "-b", "127.0.0.1:0")
    wait_until(lambda: any("RRDISPATCH_SLOT" in env(p) for p in plane.living()), 60.0)
    plane.ok("stop", "--now", "slow")
    told = finish(command)
    assert told.code == 5, told
    assert "error: slow was stopped before it served" in told.err
    nothing_left(plane, "slow")


def test_a_namespace_stays_until_another_is_said(plane: Plane) -> None:
    assert plane.start(name="one")["namespace"] == "default"
    assert plane.start("shop:app", "--namespace", "shop")["namespace"] == "shop"
    assert plane.ok("stop", "shop") == "web: stopped\n"
    assert plane.start()["namespace"] == "shop"


def test_resurrect(plane: Plane) -> None:
    plane.start(name="one")
    plane.start(name="two")
    plane.start(name="three")
    plane.ok("stop", "two")
    plane.close()
    plane.ok("start", "three")
    assert plane.ok("resurrect") == "one: started\n"
    found = {row["name"]: row["status"] for row in plane.rows()}
    assert found == {"one": "online", "two": "stopped", "three": "online"}
    assert plane.ok("resurrect") == "nothing to start\n"


def test_what_ended_with_the_machine_is_resurrected(plane: Plane) -> None:
    row = plane.start()
    os.kill(row["primary_pid"], signal.SIGTERM)
    wait_until(lambda: not plane.living(), 60.0)
    assert plane.row()["status"] == "stopped"
    assert plane.ok("resurrect") == "web: started\n"

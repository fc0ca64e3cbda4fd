"""Apps of a file: started by FILE or from its folder, all checked first, as the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.plane import Plane, free_address, get
from tests.harness.servers import APPS, Server, rrdispatch_command

SHOP = """\
instances = 1
access_log = false
namespace = "shop"
[env]
COLOUR = "blue"

[apps.web]
target = "shop:app"
bind = "127.0.0.1:0"

[apps.api]
target = "shop:app"
bind = "127.0.0.1:0"
namespace = "back"
env = {COLOUR = "red"}
"""


@pytest.fixture
def shop(plane: Plane) -> Path:
    """The file, in the folder of the app; commands are typed there if nothing else is said."""
    path = plane.here / "rrdispatch.toml"
    path.write_text(SHOP)
    return path


def names(plane: Plane) -> list[str]:
    return [row["name"] for row in plane.rows()]


def test_a_file_is_started_from_anywhere(plane: Plane, shop: Path, tmp_path: Path) -> None:
    said = plane.ok("start", str(shop), "--log", "all.log", cwd=tmp_path)
    assert [line.partition(" on ")[0] for line in said.splitlines()] == [
        "web: started, id 0: 1 worker",
        "api: started, id 1: 1 worker",
    ]
    web, api = plane.row("web"), plane.row("api")
    assert (web["namespace"], api["namespace"]) == ("shop", "back")
    assert (get(web)["colour"], get(api)["colour"]) == ("blue", "red")
    assert get(web)["cwd"] == str(plane.here)
    assert (tmp_path / "all.log").exists()


def test_without_a_word_the_folders_file_is_started(plane: Plane, shop: Path) -> None:
    plane.ok("start")
    assert names(plane) == ["web", "api"]
    told = plane.type("start")  # they run
    assert (told.code, told.err.count("runs already")) == (8, 2), told
    plane.ok("stop", "web")
    told = plane.type("start")
    assert (told.code, told.out.partition(" on ")[0]) == (8, "web: started, id 0: 1 worker")


def test_some_of_them(plane: Plane, shop: Path) -> None:
    plane.ok("start", "--only", "api")
    assert names(plane) == ["api"]
    plane.ok("start", "web")  # by its name in the file
    assert names(plane) == ["api", "web"]
    assert get(plane.row("web"))["colour"] == "blue"
    plane.ok("stop", "web")
    plane.ok("start", "web")  # by its name in the list
    assert get(plane.row("web"))["colour"] == "blue"


def test_a_target_of_ones_own_has_what_is_shared(plane: Plane, shop: Path) -> None:
    plane.ok("start", "shop:app", "-b", "127.0.0.1:0", "--name", "own")
    assert get(plane.row("own"))["colour"] == "blue"
    assert plane.row("own")["namespace"] == "shop"


@pytest.mark.parametrize(
    ("before", "after", "arguments", "message"),
    [
        ('"red"}', '"red"}\nband = "x"', (), "line 16: apps.api.band: 'x' is not a whole number"),
        ('"red"}', '"red"}\nbandd = 1', (), "line 16: there is no setting 'bandd'"),
        ('"red"}', '"red"}\nenv_file = "x"', (), "apps.api.env_file: "),
        (":0", ":1", (), "web and api both listen on 127.0.0.1:1"),
        ("", "", ("--only", "web,apo"), "there is no app 'apo'"),
        ("", "", ("--name", "x"), "--name: the apps of a file have names"),
        ('target = "shop:app"\nbind = "127.0.0.1:0"\nn', "n", (), "TARGET is missing"),
        ("shop:app", "nope.py", ("--listen", "8"), "web: 'nope.py' is no app, no file"),
    ],
)
def test_all_are_checked_before_one_is_started(
    plane: Plane, shop: Path, before: str, after: str, arguments: tuple[str, ...], message: str
) -> None:
    shop.write_text(SHOP.replace(before, after))
    told = plane.type("start", *arguments)
    assert told.code == (4 if "nope" in message else 2), told
    assert message in told.err
    assert (plane.rows(), plane.living()) == ([], [])


def test_one_that_fails_stops_no_other(plane: Plane, shop: Path) -> None:
    (plane.here / "broken.py").write_text("raise RuntimeError('no such luck')\n")
    shop.write_text(SHOP.replace("shop:app", "broken:app", 1))
    told = plane.type("start")
    assert told.code == 4, told
    assert "error: web: broken:app can't be imported" in told.err
    assert names(plane) == ["api"]


def test_a_file_means_its_apps(plane: Plane, shop: Path, tmp_path: Path) -> None:
    told = plane.type("stop", str(shop))
    assert told.code == 2, told
    plane.ok("start", "--only", "api")
    told = plane.type("reload", str(shop), "--probation", "0", cwd=tmp_path)
    assert (told.code, told.out[:13]) == (0, "api: reloaded"), told
    assert "web of " in told.err
    assert f"hint: rrdispatch start {shop} --only web" in told.err
    plane.ok("start", "web")
    stopped = plane.ok("stop", "rrdispatch.toml")  # at once: in any order
    assert sorted(stopped.splitlines()) == ["api: stopped", "web: stopped"]
    shop.write_text("[apps.other]\n")
    assert len(plane.ok("delete", "rrdispatch.toml").splitlines()) == 2
    assert plane.rows() == []


def test_the_file_is_read_again(plane: Plane, shop: Path) -> None:
    plane.ok("start")
    shop.write_text(SHOP.replace("red", "green"))
    plane.ok("restart", "all")
    assert (get(plane.row("web"))["colour"], get(plane.row("api"))["colour"]) == ("blue", "green")
    shop.write_text(SHOP.replace("[apps.api]", "[apps.other]"))
    told = plane.type("restart", "api")
    assert told.code == 2, told
    assert "there is no app 'api'" in told.err
    assert get(plane.row("api"))["colour"] == "green"  # it serves on


def ecosystem(plane: Plane, name: str = "ecosystem.json", **keys: Any) -> Path:
    env = {"env": {"COLOUR": "blue"}, "env_production": {"COLOUR": "red"}}
    app = {"name": "web", "script": "server.py", "watch_delay": 3, **env, **keys}
    path = plane.here / name
    path.write_text(json.dumps({"apps": [app]}, indent=1))
    (plane.here / "server.py").write_text(SERVER)
    return path


SERVER = """
import http.server, json, os, socketserver
class Server(socketserver.ThreadingTCPServer):  # that of http.server asks the network for its name
    allow_reuse_address = True
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"colour": os.environ.get("COLOUR")}).encode())
address = os.environ.get("ADDRESS", "127.0.0.1"), int(os.environ["PORT"])
Server(address, Handler).serve_forever()
"""


def test_pm2s_file(plane: Plane) -> None:
    host, port = free_address()
    ecosystem(plane, instances=2, port=port)
    told = plane.type("start", "ecosystem.json", "--env", "production", env={"ADDRESS": host})
    assert told.code == 0, told
    assert "web: watch_delay is not heeded" in told.err
    assert (plane.row()["instances"], plane.row()["mode"]) == (2, "program")
    assert get(plane.row())["colour"] == "red"
    plane.ok("stop", "web")
    plane.ok("start", "web")  # the profile is still meant
    assert get(plane.row())["colour"] == "red"


def test_pm2s_file_is_found_in_its_folder(plane: Plane) -> None:
    path = ecosystem(plane, "ecosystem.config.js")
    told = plane.type("start")
    assert told.code == 2, told
    assert 'node -p \'JSON.stringify(require("./ecosystem.config.js")' in told.err
    path.rename(plane.here / "ecosystem.json")
    plane.ok("start", "--no-listen", "--min-uptime", "0")
    assert names(plane) == ["web"]


def test_another_one_of_that_name(plane: Plane) -> None:
    plane.start()
    assert plane.type("start", "shop:app", "-b", "127.0.0.1:0", "--name", "web").code == 8
    plane.ok("start", "-f", "shop:app", "-b", "127.0.0.1:0", "--name", "web", "-i", "1")
    assert names(plane) == ["web", "web-2"]
    plane.ok("stop", "web")
    plane.ok("start", "-f", "web")
    assert names(plane) == ["web", "web-2"]


def test_run_can_do_one(plane: Plane, shop: Path) -> None:
    told = plane.type("run", str(shop))
    assert told.code == 2, told
    assert "has 2 apps: web, api" in told.err
    assert "hint: rrdispatch run --only web" in told.err
    told = plane.type("run", str(shop), "--", "x")
    assert (told.code, "x is nobody's argument" in told.err) == (2, True), told


def test_run_of_one_of_them(tmp_path: Path) -> None:
    text = f'[apps.one]\ntarget = "probe:asgi"\ncwd = "{APPS}"\nbind = "127.0.0.1:0"\n'
    (tmp_path / "x.toml").write_text(f'{text}[apps.two]\ntarget = "a:b"\n')
    server = Server(rrdispatch_command("run", "x.toml", "--only", "one", "-i", "1"), cwd=tmp_path)
    with server:
        server.output.wait("one: ready after", 60.0)

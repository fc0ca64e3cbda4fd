"""systemd units: what is printed, that systemd reads it, and that what it would start does right.

No systemd runs here: the test is the service manager, with a notify socket of its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch.control import units
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError
from rrdispatch.settings import from_values
from tests.cli.plane import Plane, finish, get
from tests.harness import processes
from tests.harness.servers import wait_until

SYSTEM = units.Manager(user=False, folder=Path("/etc/systemd/system"))


def keys(unit: str, key: str) -> list[str]:
    lines = [line.partition("=") for line in unit.splitlines()]
    return [value for name, _, value in lines if name == key]


def test_systemd_finds_nothing_wrong_with_it(plane: Plane, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: the unit is not verified")
    plane.start("shop:app", "--env", "GREETING=50% of $HOME", name="web-1.x")
    told = plane.type("startup", "--write", "--folder", str(tmp_path / "units"))
    assert told.code == 0, told
    unit = tmp_path / "units" / "rrdispatch-web-1.x.service"
    assert told.out == f"web-1.x: {unit}\n"
    verified = subprocess.run(
        [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=120
    )
    assert (verified.returncode, verified.stderr) == (0, ""), unit.read_text()
    spoilt = unit.with_name("spoilt.service")
    spoilt.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    verified = subprocess.run(
        [program, "verify", "--man=no", str(spoilt)], capture_output=True, text=True, timeout=120
    )
    assert "gently" in verified.stderr  # it does look


def test_nothing_is_written_unless_it_is_said(plane: Plane, tmp_path: Path) -> None:
    plane.start()
    plane.start(name="api")
    plane.ok("stop", "api")
    folder = tmp_path / "units"
    told = plane.type("startup", "--folder", str(folder))
    assert told.code == 0, told
    assert not folder.exists()
    assert "rrdispatch-web.service" in told.out
    assert "api" not in told.out  # it should not run
    assert "daemon-reload" in told.err
    assert "rrdispatch-api.service" in plane.ok("startup", "api", "--folder", str(folder))
    assert plane.type("unstartup", "web", "--folder", str(folder)).code == 2


def test_unstartup_takes_away_what_was_made_and_nothing_else(plane: Plane, tmp_path: Path) -> None:
    plane.start()
    folder = tmp_path / "units"
    plane.ok("startup", "--write", "--folder", str(folder))
    unit, link = folder / "rrdispatch-web.service", folder / "multi-user.target.wants" / "w.service"
    others = folder / "rrdispatch-mine.service"
    others.write_text("[Service]\nExecStart=/bin/true\n")
    link = link.with_name(unit.name)
    link.parent.mkdir()
    link.symlink_to(unit)
    assert plane.ok("unstartup", "--folder", str(folder)) == f"web: {unit}\n"
    assert unit.exists()
    assert plane.type("unstartup", "mine", "--write", "--folder", str(folder)).code == 2
    plane.ok("unstartup", "--write", "--folder", str(folder))
    assert sorted(folder.rglob("*")) == [link.parent, others]


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    where = units.Manager(user=True, folder=tmp_path)
    path = where.path("web")
    path.write_text("[Service]\n")
    with pytest.raises(ConfigError, match="not made by us"):
        units.write(where, "web", "x")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="not made by us"):
        units.write(where, "web", "x")
    assert not (tmp_path / "elsewhere").exists()


def test_what_depends_on_whose_systemd_it_is() -> None:
    user = units.manager({"HOME": "/home/ann"}, uid=1000)
    assert user.path("web") == Path("/home/ann/.config/systemd/user/rrdispatch-web.service")
    assert units.manager({}, uid=0) == SYSTEM
    app = definition()
    assert keys(units.text(app, user), "WantedBy") == ["default.target"]
    assert "network-online" not in units.text(app, user)
    assert keys(units.text(app, SYSTEM), "WantedBy") == ["multi-user.target"]


def definition(**more: object) -> Definition:
    return Definition("web", id=0, settings=from_values({"target": "shop:app", **more}).values())


def test_limits_come_from_the_settings() -> None:
    unit = units.text(definition(drain_timeout=100, shutdown_delay=7, instances="3"), SYSTEM)
    assert float(keys(unit, "TimeoutStopSec")[0]) > 107
    assert float(keys(unit, "TimeoutStartSec")[0]) > 3 * 160


def test_what_an_heir_asks_of_systemd() -> None:
    """Found by hand on systemd 252: without these it ends a service that an heir goes on with."""
    plain, followed = units.text(definition(), SYSTEM), units.text(definition(heir=True), SYSTEM)
    for key in ("ExitType", "ExecStop", "SuccessExitStatus"):
        assert keys(plain, key) == []
    assert keys(plain, "Restart") == ["on-failure"]
    assert keys(followed, "ExitType") == ["cgroup"]
    assert "SIGKILL" in keys(followed, "SuccessExitStatus")[0].split()
    assert keys(followed, "Restart") == ["always"]
    assert keys(followed, "RestartPreventExitStatus") == ["0 2 8"]
    (stop,) = keys(followed, "ExecStop")
    assert stop.startswith("-")
    assert stop.endswith(" stop web")


@pytest.mark.parametrize("word", ["plain", "a b", 'say "hi"', "back\\slash", "tab\there", ""])
def test_words_are_read_as_they_were_meant(word: str) -> None:
    assert shlex.split(units.quoted(word).replace("\\t", "\t")) == [word]


def test_specifiers_and_variables_are_none() -> None:
    assert units.quoted("50%h of $HOME") == '"50%%h of $$HOME"'
    assert units.quoted("A=50%h of $HOME", command=False) == '"A=50%%h of $HOME"'


class ServiceManager:
    """What systemd would know."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.settimeout(100)
        self.path = str(path)
        self.main_pid = 0

    def hear(self, word: str) -> dict[str, str]:
        """The next datagram that has this word."""
        while True:
            lines = self._sock.recv(65536).decode().split("\n")
            told = {key: value for key, _, value in (line.partition("=") for line in lines)}
            self.main_pid = int(told.get("MAINPID", self.main_pid))
            if word in lines or word in told:
                return told

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with contextlib.closing(ServiceManager(tmp_path / "notify")) as found:
        yield found


def test_what_it_starts_is_the_app_and_says_how_it_goes(
    plane: Plane, manager: ServiceManager
) -> None:
    plane.start(env={"COLOUR": "red"})
    unit = plane.ok("startup", "web")
    plane.ok("stop", "web")
    typed = shlex.split(keys(unit, "ExecStart")[0])
    assert typed[-3:] == ["start", "web", "--foreground"]
    run = plane.begin(*typed[-3:], env={"NOTIFY_SOCKET": manager.path}, cwd=Path("/"))
    try:
        manager.hear("READY=1")
        row = plane.row()
        assert (row["primary_pid"], row["id"], row["serving"]) == (run.pid, 0, 2)
        assert manager.main_pid == run.pid
        told = get(row)
        assert (told["cwd"], told["colour"]) == (str(plane.here), "red")
        assert plane.type("start", "web", "--foreground").code == 8  # it runs already
        reload = shlex.split(keys(unit, "ExecReload")[0])
        plane.ok(*reload[-2:])
        assert "MONOTONIC_USEC" in manager.hear("RELOADING=1")
        manager.hear("READY=1")
        told = plane.type("restart", "web", "--update-env")
        assert told.code == 8
        assert "hint: systemctl restart rrdispatch-web.service" in told.err
        os.kill(run.pid, signal.SIGKILL)
        manager.hear("MAINPID")
        wait_until(lambda: plane.row()["primary_pid"] == manager.main_pid, 60.0)
        assert manager.main_pid != run.pid
        assert get(plane.row())["pid"]
        os.kill(manager.main_pid, signal.SIGTERM)
        manager.hear("STOPPING=1")
    finally:
        run.kill()
        finish(run)
    wait_until(lambda: plane.row()["status"] == "stopped", 60.0)
    assert processes.wait_gone(plane.living(), 30.0) == []


def test_run_says_it_too_and_a_start_in_the_background_does_not(
    plane: Plane, manager: ServiceManager
) -> None:
    env = {"NOTIFY_SOCKET": manager.path}
    plane.start(env=env)  # typed inside of a service: that is not the app's
    run = plane.begin("run", "shop:app", "-i", "1", "-b", "127.0.0.1:0", env=env)
    try:
        manager.hear("READY=1")
        assert manager.main_pid == run.pid
        run.terminate()
        manager.hear("STOPPING=1")
    finally:
        run.terminate()
        assert finish(run).code == 0

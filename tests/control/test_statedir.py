"""The folder of running apps: private or refused, one app per name, nothing stale in the way."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rrdispatch.control import heirs, logplaces, statedir
from rrdispatch.control.statedir import CONTROL, claim, connect, home
from rrdispatch.errors import ConfigError, ControlError
from rrdispatch.settings import from_values


def test_where_it_is() -> None:
    assert home({"RRDISPATCH_HOME": "/a/b"}) == Path("/a/b")
    assert home({}, uid=0) == Path("/var/lib/rrdispatch")
    assert home({"HOME": "/home/x"}, uid=7) == Path("/home/x/.local/state/rrdispatch")
    assert home({"HOME": "/h", "XDG_STATE_HOME": "/s"}, uid=7) == Path("/s/rrdispatch")


def test_private_from_the_first_moment(tmp_path: Path) -> None:
    place = claim("web", tmp_path / "home")
    try:
        for path in (tmp_path / "home", place.folder):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((place.folder / CONTROL).stat().st_mode) == 0o600
        connect("web", tmp_path / "home").close()
    finally:
        place.release()
    assert not (place.folder / CONTROL).exists()
    with pytest.raises(ControlError, match="web does not run"):
        connect("web", tmp_path / "home")
    with pytest.raises(ControlError, match="other does not run"):
        connect("other", tmp_path / "home")


def test_a_name_is_one_apps_also_while_only_a_duplicate_of_the_lock_is_held(tmp_path: Path) -> None:
    place = claim("web", tmp_path)
    with pytest.raises(ControlError, match="web runs already"):
        claim("web", tmp_path)
    claim("other", tmp_path).release()
    kept = os.dup(place.lock)
    place.close()
    with pytest.raises(ControlError, match="web runs already"):
        claim("web", tmp_path)
    os.close(kept)
    again = claim("web", tmp_path)  # and the socket that lay there was in nobody's way
    connect("web", tmp_path).close()
    again.release()


def test_who_deleted_the_folder_leaves_alone_who_has_it_now(tmp_path: Path) -> None:
    place = claim("web", tmp_path)
    statedir.remove(place.folder)
    again = claim("web", tmp_path)
    place.release()
    connect("web", tmp_path).close()
    again.release()
    assert not (again.folder / CONTROL).exists()


def test_a_path_of_any_length(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120) / ("y" * 120)
    place = claim("web", long)
    connect("web", long).close()
    place.release()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_write_in_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web").chmod(mode)
    with pytest.raises(ConfigError, match="written to by others") as caught:
        claim("web", tmp_path)
    assert "chmod 0700" in str(caught.value.hint)
    assert list((tmp_path / "web").iterdir()) == []


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "web").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="is no folder"):
        claim("web", tmp_path)


def test_a_lock_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir(mode=0o700)
    (tmp_path / "web" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        claim("web", tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to own a folder as somebody else")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir(mode=0o700)
    os.chown(tmp_path / "web", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        claim("web", tmp_path)


def test_a_home_that_is_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        claim("web", tmp_path / "file")
    assert "RRDISPATCH_HOME" in str(caught.value.hint)


def test_nothing_is_left_open_by_a_refusal(tmp_path: Path) -> None:
    place = claim("web", tmp_path)
    gc.collect()  # what other tests left is not closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(ControlError):
            claim("web", tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    place.release()


def test_who_may_not_have_an_heir(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = from_values({"target": "app:app", "heir": True})
    heirs.check(settings)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ConfigError, match="process 1"):
        heirs.check(settings)


def test_an_embedded_cluster_has_no_heirs() -> None:
    from rrdispatch import Cluster

    with pytest.raises(ConfigError, match="embedded Cluster"):
        Cluster("app:app", heir=True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_our_user_and_root_are_let_in_and_nobody_else() -> None:
    """The kernel says who connected, whatever they are now."""
    script = (
        "import os, socket\n"
        "from rrdispatch.control.clients import allowed\n"
        "pairs = []\n"
        "for uid in (0, 1234, 4321):\n"
        "    os.seteuid(uid); pairs.append(socket.socketpair()); os.seteuid(0)\n"
        "os.setresuid(4321, 4321, 4321)\n"
        "print([allowed(ours) for ours, _ in pairs])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, False, True]"


def test_roots_logs_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedir, "ROOT_LOGS", tmp_path / "log" / "rrdispatch")
    monkeypatch.setattr(statedir, "_check", lambda _: None)  # who runs the tests may be anybody
    assert statedir.log_folder({}, 0) == tmp_path / "log" / "rrdispatch"
    assert (tmp_path / "log" / "rrdispatch").is_dir()
    assert statedir.log_folder({"RRDISPATCH_HOME": "/var/lib/rrdispatch/"}, 0) == statedir.ROOT_LOGS
    home = {"RRDISPATCH_HOME": str(tmp_path / "home")}
    assert statedir.log_folder(home, 0) == tmp_path / "home" / "logs"


def test_a_start_and_its_primary_agree_on_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command may have no RRDISPATCH_HOME; its primary always has: that of the command."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(statedir, "_check", lambda _: None)  # who runs the tests may be anybody
    monkeypatch.setattr(statedir, "ROOT_HOME", tmp_path / "lib", raising=False)
    monkeypatch.setattr(statedir, "ROOT_LOGS", tmp_path / "log")
    settings = from_values({"target": "app:app", "name": "web"})
    monkeypatch.delenv("RRDISPATCH_HOME", raising=False)
    command = logplaces.with_default(settings)
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "lib"))
    assert logplaces.with_default(settings) == command
    assert command.log_file == str(tmp_path / "log" / "web.log")

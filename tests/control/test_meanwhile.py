"""What others did to an app between the look at it and the deed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rrdispatch.checks import MOST_WORKERS
from rrdispatch.cli import resurrect
from rrdispatch.cli import start as cli_start
from rrdispatch.control import changing, definitions, ending, statedir
from rrdispatch.control.definitions import RUN, STOP, Definition
from rrdispatch.control.selectors import Target
from rrdispatch.control.statedir import NotRunningError
from rrdispatch.errors import ConfigError, ControlError


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definition:
    """``web`` as a command found it; it does not run."""
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path))
    (tmp_path / "web").mkdir(mode=0o700)
    made = Definition("web", id=0, wanted=RUN, settings={"instances": "2"})
    definitions.save(made)
    return made


def known() -> Definition:
    found = definitions.load("web")
    assert found is not None
    return found


def test_scale_keeps_what_others_changed(app: Definition) -> None:
    other = known()
    other.wanted, other.settings["instances"] = STOP, "5"
    definitions.save(other)
    assert changing.scale(app, "+1") == 6
    assert (known().wanted, known().instances) == (STOP, "6")


def test_scale_of_a_deleted_app_brings_nothing_back(app: Definition, tmp_path: Path) -> None:
    statedir.remove(tmp_path / "web")
    with pytest.raises(NotRunningError, match="not known any more"):
        changing.scale(app, "3")
    assert not (tmp_path / "web").exists()


def test_the_lock_of_a_deleted_app_brings_nothing_back(app: Definition, tmp_path: Path) -> None:
    with ending.locked("web"):
        assert known() == app
    assert (tmp_path / "web").exists()
    statedir.remove(tmp_path / "web")
    with ending.locked("web"):
        assert definitions.load("web") is None
    assert not (tmp_path / "web").exists()


def test_a_folder_that_is_anothers_by_now_is_left_alone(app: Definition, tmp_path: Path) -> None:
    with ending.locked("web"):
        statedir.remove(tmp_path / "web")
        place = statedir.claim("web")  # a start that has not written anything down yet
    assert (tmp_path / "web" / statedir.LOCK).exists()
    place.release()


def test_a_full_disk_keeps_nobody_from_deleting(
    app: Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ControlError, match="it is stopped, but the definition of web cannot be"):
        ending.stop(app)
    ending.delete(app)
    assert not (tmp_path / "web").exists()


def test_scale_to_more_than_there_can_be(app: Definition) -> None:
    with pytest.raises(ConfigError, match=f"{MOST_WORKERS + 1} workers"):
        changing.scale(app, str(MOST_WORKERS + 1))
    assert known().instances == "2"


def test_resurrect_starts_what_is_wanted_by_then(
    app: Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Definition] = []
    monkeypatch.setattr(cli_start, "start", lambda found, *_, **__: started.append(found))
    other = known()
    other.settings["instances"] = "5"
    definitions.save(other)
    assert resurrect.start(Target(app)) == "started"
    assert started == [other]
    other.wanted = STOP
    definitions.save(other)
    assert resurrect.start(Target(app)) == "was stopped meanwhile"
    statedir.remove(tmp_path / "web")
    assert resurrect.start(Target(app)) == "was deleted meanwhile"
    assert len(started) == 1

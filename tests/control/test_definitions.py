"""What is saved of an app: whole or not at all, for its user only, data and not code."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from rrdispatch.control import definitions, statedir
from rrdispatch.control.definitions import FILE, Definition, all_of, give_id, load, save
from rrdispatch.errors import ControlError


def make(base: Path, name: str) -> Definition:
    os.close(statedir.open_private(base / name))
    return Definition(name, typed={"target": "a:b"}, environ={"X": "\udce9 é\n", "Y": ""})


def test_it_comes_back_as_it_was_and_is_nobody_elses(tmp_path: Path) -> None:
    saved = make(tmp_path / "home", "web")
    save(saved, tmp_path / "home")
    assert load("web", tmp_path / "home") == saved
    path = tmp_path / "home" / "web" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load("other", tmp_path / "home") is None


def test_the_one_before_stays_if_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = make(tmp_path / "home", "web")
    save(saved, tmp_path / "home")
    changed = make(tmp_path / "home", "web")
    changed.namespace = "other"

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ControlError, match="cannot be saved: No space left"):
        save(changed, tmp_path / "home")
    assert load("web", tmp_path / "home") == saved


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100000, '{"format": 2}', '{"format": 1, "id": "0"}',
     '{"format": 1, "environ": []}', "\xff"],
)  # fmt: skip
def test_a_spoilt_one_is_told_and_stops_no_list(tmp_path: Path, text: str) -> None:
    base = tmp_path / "home"
    save(make(base, "web"), base)
    save(make(base, "good"), base)
    (base / "web" / FILE).write_text(text, encoding="latin-1")
    with pytest.raises(ControlError, match=f"{FILE} is spoilt") as caught:
        load("web", base)
    assert caught.value.hint == "delete it: rrdispatch delete web"
    found = {definition.name: definition for definition in all_of(base)}
    assert found["good"].error is None
    assert found["web"].error is not None


def test_no_symlink_is_followed(tmp_path: Path) -> None:
    base = tmp_path / "home"
    save(make(base, "web"), base)
    elsewhere = tmp_path / "elsewhere"
    os.rename(base / "web" / FILE, elsewhere)
    os.symlink(elsewhere, base / "web" / FILE)
    with pytest.raises(ControlError):
        load("web", base)


def test_unknown_keys_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    base = tmp_path / "home"
    save(make(base, "web"), base)
    path = base / "web" / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    found = load("web", base)
    assert found is not None
    assert found.typed == {"target": "a:b"}


def test_ids_are_given_once_by_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "home"
    monkeypatch.setattr(definitions, "WAIT", 60.0)  # eight wait for each other, and for the disk
    made = [make(base, f"app{number}") for number in range(8)]
    threads = [threading.Thread(target=give_id, args=(each, base)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.id for each in made) == list(range(8))
    again = make(base, "app3")
    again.id = made[3].id
    give_id(again, base)
    assert again.id == made[3].id  # its own


def test_a_held_lock_of_the_ids_is_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "home"
    one = make(base, "web")
    monkeypatch.setattr(definitions, "WAIT", 0.05)
    with definitions.lock_ids(base), pytest.raises(ControlError, match="somebody holds the lock"):
        give_id(one, base)

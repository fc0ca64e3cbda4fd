"""A file of which a whole one is always left, and who says so."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.control import definitions, kept, saved
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.errors import ControlError

ROOT = Path(__file__).parents[2]


def read(path: Path) -> tuple[Any, str] | None:
    return kept.read(path, lambda told: told)


def test_the_one_before_is_used_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read(path) is None
    for number in (1, 2, 3):
        kept.write(path, {"n": number})
        assert read(path) == ({"n": number}, "")
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    found = read(path)
    assert found is not None
    assert found[0] == {"n": 2}
    assert f"{path} is spoilt" in found[1]
    assert "the one before it is used" in found[1]


def test_a_spoilt_one_does_not_become_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    kept.write(path, {"n": 1})
    kept.write(path, {"n": 2})
    path.write_text("{")
    kept.write(path, {"n": 3})
    path.write_text("")
    found = read(path)
    assert found is not None
    assert found[0] == {"n": 1}


@given(st.dictionaries(st.text(), st.text()), st.data())
def test_no_part_of_it_is_taken_for_the_whole(told: dict[str, str], data: st.DataObject) -> None:
    whole = json.dumps({"told": told}, indent=1)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the reader says)
        json.loads(part)


def test_neither_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{")
    with pytest.raises(ControlError, match="is spoilt"):
        read(path)


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_what_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "file"
    kept.write(path, {"n": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(OSError, match="No space"):
            kept.write(path, {"n": 2})
    assert read(path) == ({"n": 1}, "")


WRITER = """
import sys
from pathlib import Path
from rrdispatch.control import kept
for number in range(10**9):
    kept.write(Path(sys.argv[1]), {"n": number, "much": "x" * 5000, "last": number})
    print(number, flush=True)
"""


def test_killed_while_it_is_written(tmp_path: Path) -> None:
    path, last = tmp_path / "file", -1
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
            assert writer.stdout is not None
            for _line in range(30):
                last = int(writer.stdout.readline())
            writer.kill()
        for each in (path, kept.previous(path)):
            told = json.loads(each.read_bytes())
            assert told["n"] == told["last"]
        found = read(path)
        assert found is not None
        assert found[0]["n"] >= last
        assert found[1] == ""


def test_without_hard_links_there_is_none_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "file"
    kept.write(path, {"n": 1})
    kept.write(path, {"n": 2})
    assert read(path) == ({"n": 2}, "")
    assert os.listdir(tmp_path) == ["file"]


def test_a_definition_that_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir(mode=0o700)
    one = Definition("web", id=0, wanted=RUN)
    definitions.save(one, tmp_path)
    one.namespace = "shop"
    definitions.save(one, tmp_path)
    path = tmp_path / "web" / definitions.FILE
    os.truncate(path, path.stat().st_size // 2)
    found = definitions.load("web", tmp_path)
    assert found is not None
    assert (found.namespace, found.wanted) == ("default", RUN)
    assert "the one before it is used" in found.spoilt
    definitions.save(found, tmp_path)
    again = definitions.load("web", tmp_path)
    assert again is not None
    assert again.spoilt == ""


def test_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path))
    assert saved.load() is None
    one, two = Definition("one", id=0, environ={"A": "\udce9"}), Definition("two", id=1)
    saved.save([one])
    saved.save([one, two])
    found = saved.load()
    assert found is not None
    assert (found.apps, found.spoilt) == ((one, two), "")
    saved.path().write_text('{"format": 1, "at": 0, "apps": [{"name": 3, "id": "x"}]}')
    found = saved.load()
    assert found is not None
    assert found.apps == (one,)
    assert "the one before it is used" in found.spoilt

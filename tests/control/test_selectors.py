"""Which apps are meant; everything is checked before anything is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition, save
from rrdispatch.control.selectors import resolve
from rrdispatch.errors import ConfigError, ControlError

APPS = (("web", 0, "shop"), ("api", 1, "shop"), ("7", 2, "default"), ("worker", 7, "default"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    for name, number, namespace in APPS:
        os.close(statedir.open_private(statedir.home() / name))
        save(Definition(name, number, namespace))


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["web"], ["web"]),
        (["0"], ["web"]),
        (["7"], ["7"]),  # a name goes before an id
        (["2"], ["7"]),
        (["shop"], ["web", "api"]),
        (["/w/"], ["web", "worker"]),
        (["/^w.b$/"], ["web"]),
        (["all"], ["web", "api", "7", "worker"]),
        (["api", "web", "1", "all"], ["api", "web", "7", "worker"]),
        (["web:1"], ["web:1"]),
        (["0:1", "web:1", "web:2"], ["web:1", "web:2"]),
        (["shop:0"], ["web:0", "api:0"]),
    ],
)
def test_who_is_meant(texts: list[str], names: list[str]) -> None:
    assert [target.shown for target in resolve(texts, slots=True)] == names


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("wbe", "'wbe' matches no app", "did you mean web?"),
        ("99", "'99' matches no app", "there are: web, api, 7, worker"),
        ("shpo", "'shpo' matches no app", "did you mean shop?"),
        ("/nope/", "'/nope/' matches no app", "there are"),
        ("/(/", "/(/ is no regular expression", ""),
        ("web:x", "'web:x' matches no app", "web"),
        ("", "'' matches no app", "there are"),
    ],
)
def test_what_matches_nothing_is_an_error_that_helps(text: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(["web", text])
    assert caught.value.message.startswith(what)
    assert hint in str(caught.value.hint)


def test_one_worker_where_whole_apps_are_meant() -> None:
    with pytest.raises(ConfigError, match="web:1: this is done to whole apps"):
        resolve(["web:1"])


def test_a_lock_of_a_folder_that_was_deleted_is_the_lock_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever held it deletes the folder just before we get it."""
    base, lock = tmp_path / "other", statedir._lock
    deletions = [None, None]

    def late(fd: int, name: str) -> None:
        if deletions:
            deletions.pop()
            statedir.remove(base / "web")
        lock(fd, name)

    monkeypatch.setattr(statedir, "_lock", late)
    directory, held = statedir.hold("web", base)
    try:
        assert os.path.samestat(os.stat(base / "web" / statedir.LOCK), os.fstat(held))
        with pytest.raises(ControlError, match="web runs already"):
            statedir.hold("web", base)
    finally:
        os.close(directory)
        os.close(held)

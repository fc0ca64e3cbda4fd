"""What ``run`` gathers and says, without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rrdispatch import _core
from rrdispatch.cli import run
from rrdispatch.cli.run import Talk, command, gather, warnings
from rrdispatch.cpus import Cpus, count
from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings, from_sources

CPUS = Cpus(8, 4, 8, 4.0)


def typed(*arguments: str) -> dict[str, Any]:
    params = dict(command.make_context("run", list(arguments)).params)
    params.pop("config")
    return params


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_in_the_working_directory_is_found(here: Path) -> None:
    (here / "rrdispatch.toml").write_text('target = "shop.main:app"\nband = 3\n')
    settings = gather(typed("--band", "4"), {}, None)
    assert (settings.target, settings.name, settings.band) == ("shop.main:app", "shop", 4)


def test_a_named_file_is_taken_instead(here: Path) -> None:
    (here / "rrdispatch.toml").write_text("broken")
    (here / "other.toml").write_text('target = "a:b"\n')
    assert gather(typed(), {}, "other.toml").target == "a:b"


def test_a_broken_file_is_refused_with_its_line(here: Path) -> None:
    (here / "rrdispatch.toml").write_text('target = "a:b"\nband =\n')
    with pytest.raises(ConfigError, match="rrdispatch.toml: line 2"):
        gather(typed(), {}, None)


def test_a_heading_that_is_one_too_many(here: Path) -> None:
    (here / "rrdispatch.toml").write_text('[rrdispatch]\ntarget = "a:b"\n')
    with pytest.raises(ConfigError, match=r"line 1: there is no table \[rrdispatch\]") as caught:
        gather(typed(), {}, None)
    assert "top of the file" in (caught.value.hint or "")


def test_repeated_options_add_up(here: Path) -> None:
    settings = gather(
        typed("a:b", "-b", ":1", "-b", "unix:/x", "--env", "A=1", "--env", "B=2=3"), {}, None
    )
    assert settings.bind == (":1", "unix:/x")
    assert settings.env == {"A": "1", "B": "2=3"}


def test_switches(here: Path) -> None:
    assert gather(typed("a:b"), {"RRDISPATCH_PARK": "0"}, None).park is False
    assert gather(typed("a:b", "--park"), {"RRDISPATCH_PARK": "0"}, None).park is True
    assert gather(typed("a:b", "--no-access-log"), {}, None).access_log is False


def test_a_bad_env_file_is_refused_before_anything_starts(here: Path) -> None:
    (here / "env").write_text("A=1\nB\n")
    with pytest.raises(ConfigError, match="line 2"):
        gather(typed("a:b", "--env-file", "env"), {}, None)
    with pytest.raises(ConfigError, match="does not exist"):
        gather(typed("a:b", "--env-file", "none"), {}, None)


@pytest.mark.parametrize(
    ("bind", "hint"),
    [
        ((), "--bind 0.0.0.0:8000"),
        (("127.0.0.1:9",), "--bind 0.0.0.0:9"),
        (("[::1]:9", "localhost:7"), "--bind 0.0.0.0:9"),
    ],
)
def test_loopback_as_process_1_is_warned_about(bind: tuple[str, ...], hint: str) -> None:
    settings = from_sources({"target": "a:b", "bind": bind or None, "dispatcher": "c"}, {})
    assert [found[1] for found in warnings(settings, 1)] == [hint]
    assert warnings(settings, 2) == []


@pytest.mark.parametrize("bind", [("0.0.0.0:1",), (":1",), ("127.0.0.1:1", "10.0.0.1:1"),
                                  ("unix:/x",), ("fd://3",), ("[::]:1",)])  # fmt: skip
def test_what_can_be_reached_is_not_warned_about(bind: tuple[str, ...]) -> None:
    assert warnings(from_sources({"bind": bind, "dispatcher": "c"}, {}), 1) == []


def test_without_listening_there_is_nothing_to_warn_about() -> None:
    assert warnings(Settings(listen=False, dispatcher="c"), 1) == []


def test_a_missing_c_dispatcher_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "dispatcher_program", lambda: None)
    ((message, hint),) = warnings(Settings(), 2)
    assert "C dispatcher was not built" in message
    assert "--dispatcher python" in hint
    assert warnings(Settings(dispatcher="python"), 2) == []


def test_the_start_says_where_how_many_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.time, "monotonic", lambda: 12.5)
    talk = Talk(Settings("shop.main:app", name="shop"), count("max", CPUS), began=12.0)
    listeners = [
        {"family": "inet", "address": ["127.0.0.1", 8000]},
        {"family": "inet6", "address": ["::1", 8000]},
        {"family": "unix", "address": "/run/shop.sock"},
    ]
    talk.event({"event": "listening", "message": "not needed", "listeners": listeners})
    talk.event({"event": "ready"})
    talk.event({"event": "worker", "message": "slot 1: respawned"})
    talk.event({"event": "counted"})
    talk.event({"event": "warning", "message": "odd", "hint": "look"})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "shop: shop.main:app, rrdispatch 0.1.0",
        "shop: listening on http://127.0.0.1:8000",
        "shop: listening on http://[::1]:8000",
        "shop: listening on unix:/run/shop.sock",
        "shop: 4 workers: 4 of 8 cores by cgroup quota of 4",
        "shop: ready after 0.5 s",
        "shop: slot 1: respawned",
        "warning: odd",
        "hint: look",
    ]


def test_what_is_to_be_watched_must_be_there(here: Path) -> None:
    (here / "shop").mkdir()
    arguments = ("a:b", "--watch", "--cwd", str(here / "shop"), "--watch-path")
    with pytest.raises(ConfigError, match="templates does not exist"):
        gather(typed(*arguments, "templates"), {}, None)
    (here / "shop" / "templates").mkdir()
    assert gather(typed(*arguments, "templates"), {}, None).watch_paths == ("templates",)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (Settings(name="a", ssl_certfile="/x"), "https://127.0.0.1:1"),
        (Settings(name="a", interface="serve"), "127.0.0.1:1"),
        (Settings(name="a", target="echo:serve"), "127.0.0.1:1"),
    ],
)
def test_the_scheme_is_what_the_app_speaks(
    settings: Settings, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listeners = [{"address": ["127.0.0.1", 1]}]
    Talk(settings, count("1", CPUS)).event({"event": "listening", "listeners": listeners})
    assert f"a: listening on {address}\n" in capsys.readouterr().err

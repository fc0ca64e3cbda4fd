"""What a generation runs with, and what a worker is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from rrdispatch._core.layout import MAX_LISTENERS
from rrdispatch.cluster.handle import describe_exit
from rrdispatch.cluster.launch import Launch, Origin, resolve
from rrdispatch.cluster.spawn import Numbers, Post, environment
from rrdispatch.cluster.supervisor import bind_all
from rrdispatch.cluster.workers import number, parse_error
from rrdispatch.errors import BindError, ConfigError
from rrdispatch.settings import from_values


def interpreter(folder: Path) -> str:
    """A virtualenv's, as far as we look."""
    path = folder / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.symlink_to(sys.executable)
    return str(path)


def launch(folder: Path, environ: dict[str, str] | None = None, **values: Any) -> Launch:
    origin = Origin(str(folder), {"PATH": os.environ["PATH"], **(environ or {})})
    return resolve(from_values({"target": "app:app", **values}), origin)


def test_the_interpreter_is_the_one_that_fits_the_app_best(tmp_path: Path) -> None:
    assert launch(tmp_path).python == sys.executable
    beside = interpreter(tmp_path / ".venv")
    assert launch(tmp_path).python == beside
    active = interpreter(tmp_path / "active")
    environ = {"VIRTUAL_ENV": str(tmp_path / "active")}
    assert launch(tmp_path, environ).python == active
    said = interpreter(tmp_path / "said")
    assert launch(tmp_path, environ, python=said).python == said
    gone = {"VIRTUAL_ENV": str(tmp_path / "gone")}
    assert launch(tmp_path, gone).python == beside


def test_a_virtualenv_behind_a_symlink_is_resolved_but_not_left(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "releases" / "1" / ".venv")
    (tmp_path / "current").symlink_to("releases/1")
    found = launch(tmp_path / "current")
    assert found.cwd == str(tmp_path / "releases" / "1")
    assert found.python == python


def test_an_interpreter_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a program"):
        launch(tmp_path, python="/absent/python")
    assert launch(tmp_path, python="sh").python.endswith("/sh")


def test_the_environment_has_its_order(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    environ = {"A": "own", "B": "own", "C": "own", "RRDISPATCH_POLICY": "strict"}
    values = {"env_file": str(tmp_path / "env"), "env": {"A": "said"}}
    found = launch(tmp_path, environ, **values).environment
    assert [found[key] for key in "ABC"] == ["said", "file", "own"]
    assert "RRDISPATCH_POLICY" not in found
    assert found["PYTHONUNBUFFERED"] == "1"
    kept = launch(tmp_path, {"PYTHONUNBUFFERED": ""}).environment
    assert kept["PYTHONUNBUFFERED"] == ""


def test_the_typed_folder_is_kept_where_it_is_a_symlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "current").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    assert Origin.here().cwd == str(tmp_path / "current")
    monkeypatch.setenv("PWD", "/elsewhere")
    assert Origin.here().cwd == str(tmp_path / "real")


def test_a_worker_is_told_its_place(tmp_path: Path) -> None:
    told = {"family": "inet", "address": ["127.0.0.1", 80]}
    post = Post(5, 2, 3, 4, [told, told], (1024, 4096))
    made = launch(tmp_path, name="shop", max_requests=100, max_requests_jitter=50)
    found = environment(made, post)
    place = {key: found["RRDISPATCH_" + key] for key in ("NAME", "SLOT", "GENERATION", "WORKERS")}
    assert place == {"NAME": "shop", "SLOT": "2", "GENERATION": "3", "WORKERS": "4"}
    listeners = json.loads(found["RRDISPATCH_LISTENERS"])
    channel = Numbers(shared=0).channel
    assert [each["fd"] for each in listeners] == [channel, channel + 1]
    app = json.loads(found["RRDISPATCH_APP"])
    assert app["target"] == "app:app"
    assert 100 <= app["max_requests"] <= 150


def test_how_a_process_ended_is_said_in_words() -> None:
    assert describe_exit(os.CLD_EXITED, 3) == "exit code 3"
    assert describe_exit(os.CLD_KILLED, signal.SIGKILL) == "killed by SIGKILL"
    assert describe_exit(os.CLD_DUMPED, signal.SIGSEGV) == "killed by SIGSEGV (core dumped)"
    assert describe_exit(os.CLD_KILLED, 63) == "killed by signal 63"


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, 1), ("", 1), ("7", 7), ("99", 16), ("0", 1), ("-3", 1), ("x", 1), ("9" * 5000, 16)],
)
def test_numbers_of_workers_are_clamped(text: str | None, found: int) -> None:
    assert number(text, 1, 16) == found


def test_whatever_a_worker_calls_an_error_has_a_message() -> None:
    assert parse_error('{"message": "m", "code": "target"}')["code"] == "target"
    for nonsense in ("", "{", "[]", "7", "[" * 100000):
        assert parse_error(nonsense)["message"] == nonsense[:1000]


def test_all_addresses_are_bound_or_none(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        values = {"target": "a:b", "bind": [f"unix:{path}", f"127.0.0.1:{port}"]}
        with pytest.raises(BindError, match=str(port)):
            bind_all(from_values(values))
    assert not path.exists()
    own = f"127.9.8.7:{port}"  # nobody else takes it meanwhile: all others are on 127.0.0.1
    twice = {"target": "a:b", "bind": [own, f"0.0.0.0:{port}"]}
    with pytest.raises(BindError, match=f"this service listens on {own} already"):
        bind_all(from_values(twice))
    many = {"target": "a:b", "bind": ["127.0.0.1:0"] * (MAX_LISTENERS + 1)}
    with pytest.raises(ConfigError, match="at most 16"):
        bind_all(from_values(many))

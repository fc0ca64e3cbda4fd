"""pm2's files: each of its keys comes to the right setting, is noted, or is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch import apps
from rrdispatch.apps import AppsFile
from rrdispatch.apps.pm2keys import KEYS
from rrdispatch.apps.reasons import ALIASES, HARMLESS, REASONS
from rrdispatch.errors import ConfigError
from rrdispatch.files import ConfigFile
from rrdispatch.settings import OPTIONS, Settings, from_sources

# Every key of pm2 7's schema, and its other names.
THEIRS = set(
    """
    script exec cmd command name name_prefix filter_env namespace install_url cwd args interpreter
    exec_interpreter node_args interpreterArgs interpreter_args out_file out output out_log
    error_file error err err_file err_log log_file log disable_logs log_type log_date_format time
    env max_memory_restart pid_file pid restart_delay exp_backoff_restart_delay source_map_support
    disable_source_map_support wait_ready instances kill_timeout shutdown_with_message
    listen_timeout cron_restart cron merge_logs combine_logs vizion autorestart watch_delay watch
    ignore_watch watch_options min_uptime max_restarts execute_command exec_mode force
    append_env_to_name post_update trace disable_trace v8 event_loop_inspector deep_monitoring
    increment_var instance_var pmx automation treekill port username uid user gid windowsHide
    kill_retry_time write io autostart stop_exit_codes
    """.split()  # noqa: SIM905 (a list of 90 words)
)


def read(folder: Path, *entries: dict[str, Any], profile: str = "", **more: Any) -> AppsFile:
    path = folder / "ecosystem.json"
    path.write_text(json.dumps({"apps": list(entries), **more}, indent=1))
    found = apps.load(path, profile)
    assert found is not None
    return found


def settings(file: AppsFile, name: str = "web") -> Settings:
    return from_sources({}, {}, file.config(name))


def one(folder: Path, **keys: Any) -> Settings:
    return settings(read(folder, {"name": "web", "script": "web.js", **keys}))


def test_every_key_of_theirs_is_known_once() -> None:
    for key in THEIRS:
        assert (key in KEYS) + (key in REASONS) + (key in ALIASES) == 1, key
    assert {*KEYS, *REASONS, *ALIASES} - THEIRS == {"deploy", "static"}
    assert set(ALIASES.values()) <= {*KEYS, *REASONS}
    assert HARMLESS.keys() <= REASONS.keys()


@pytest.mark.parametrize(
    ("keys", "ours"),
    [
        ({}, {"target": "web.js", "instances": "1", "name": "web"}),
        ({"instances": 0}, {"instances": "max"}),
        ({"instances": "max"}, {"instances": "max"}),
        ({"instances": -1}, {"instances": "-1"}),
        ({"instances": 2.0}, {"instances": "2"}),
        ({"args": "--port 80 'a b'"}, {"arguments": ("--port", "80", "a b")}),
        ({"args": ["--port", 80]}, {"arguments": ("--port", "80")}),
        ({"interpreter": "python3"}, {"interpreter": "python3"}),
        ({"interpreter": "none"}, {"interpreter": None}),
        ({"node_args": "--inspect"}, {"target": "node", "arguments": ("--inspect", "web.js")}),
        ({"kill_timeout": 3000}, {"drain_timeout": 3.0}),
        ({"listen_timeout": "5s"}, {"ready_timeout": 5.0}),
        ({"listen_timeout": "5000"}, {"ready_timeout": 5.0}),
        ({"restart_delay": 100}, {"respawn_delay": 0.1}),
        ({"exp_backoff_restart_delay": 250}, {"respawn_delay": 0.25}),
        ({"min_uptime": "1h"}, {"min_uptime": 3600.0}),
        ({"min_uptime": 1000}, {"min_uptime": 1.0}),
        ({"max_restarts": 0}, {"max_restarts": 1}),
        ({"max_restarts": 10}, {"max_restarts": 10}),
        ({"wait_ready": True}, {"wait_ready": False}),
        ({"watch": True}, {"watch": True, "watch_paths": ()}),
        ({"watch": ["src", "lib"]}, {"watch": True, "watch_paths": ("src", "lib")}),
        ({"watch": "src"}, {"watch": True, "watch_paths": ("src",)}),
        ({"combine_logs": True}, {"merge_logs": True}),
        ({"error": "NULL"}, {"error_file": "/dev/null"}),
        ({"disable_logs": True}, {"log_file": "/dev/null"}),
        ({"log": True}, {"log_file": None}),
        ({"log_type": "json"}, {"log_type": "json"}),
        ({"time": True}, {"log_time": True}),
        ({"log_date_format": "HH"}, {"log_time": True}),
        ({"port": 3000}, {"env": {"PORT": "3000"}}),
        ({"env": {"A": 1, "B": True, "C": 1.5, "D": "x", "E": 2.0}},
         {"env": {"A": "1", "B": "true", "C": "1.5", "D": "x", "E": "2"}}),
        ({"listen": False, "band": 3}, {"listen": False, "band": 3}),
        ({"env_file": "x.env"}, {"env": {}}),
        ({"cmd": None, "cwd": "/srv"}, {"cwd": "/srv"}),
    ],
)  # fmt: skip
def test_what_a_key_comes_to(tmp_path: Path, keys: dict[str, Any], ours: dict[str, Any]) -> None:
    found = one(tmp_path, **keys)
    assert {key: getattr(found, key) for key in ours} == ours


@pytest.mark.parametrize(
    ("keys", "ours"),
    [
        ({"max_memory_restart": "300M"}, "max_memory_restart"),
        ({"autorestart": False}, "autorestart"),
        ({"stop_exit_codes": [0]}, "stop_exit_codes"),
        ({"cron_restart": "0 3 * * *"}, "cron_restart"),
        ({"ignore_watch": ["tmp"]}, "ignore_watch"),
        ({"ignore_watch": "tmp"}, "ignore_watch"),
        ({"uid": "nobody"}, "user"),
        ({"gid": "nogroup"}, "group"),
    ],
)
def test_what_is_there_when_it_is_there(tmp_path: Path, keys: dict[str, Any], ours: str) -> None:
    file = read(tmp_path, {"name": "web", "script": "web.js", **keys})
    (key,) = keys
    if ours in OPTIONS:
        assert file.notes == ()
        assert getattr(settings(file), ours) != getattr(Settings(), ours)
    else:
        (note,) = file.notes
        assert f"web: {key} is not heeded" in note.message
        assert note.hint == "not supported yet"


def test_a_command_with_words_in_it(tmp_path: Path) -> None:
    found = one(tmp_path, script="python -m http.server", args=["80"])
    assert (found.target, found.arguments) == ("python", ("-m", "http.server", "80"))
    (tmp_path / "my app.js").touch()
    assert one(tmp_path, script="my app.js", args="x").target == "my app.js"


def test_it_is_said_that_an_app_has_one_worker_because_nothing_was_said(tmp_path: Path) -> None:
    assert one(tmp_path).sources["instances"] == ("ecosystem.json: web: instances (1 if not said)")


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    assert one(tmp_path, out_file="logs/out.log").out_file == str(tmp_path / "logs/out.log")


def test_a_profile_goes_on_top(tmp_path: Path) -> None:
    keys = {"env": {"A": "1", "B": "1"}, "env_production": {"B": "2"}}
    entries = ({"name": "web", "script": "w.js", **keys}, {"name": "job", "script": "j.js"})
    assert settings(read(tmp_path, *entries)).env == {"A": "1", "B": "1"}
    file = read(tmp_path, *entries, profile="production")
    assert settings(file).env == {"A": "1", "B": "2"}
    assert settings(file, "job").env == {}
    with pytest.raises(ConfigError, match="has no env_producton") as caught:
        read(tmp_path, *entries, profile="producton")
    assert caught.value.hint == "did you mean production?"


@pytest.mark.parametrize("key", sorted(set(REASONS) - {"deploy", "static"}))
def test_what_has_no_counterpart_is_named_with_the_reason(tmp_path: Path, key: str) -> None:
    value: Any = not HARMLESS[key] if key in HARMLESS else "x"
    file = read(tmp_path, {"name": "web", "script": "web.js", key: value})
    (note,) = file.notes
    assert note.message == f"{file.path}: line 6: web: {key} is not heeded"
    assert note.hint == REASONS[key]
    if key in HARMLESS:
        assert not read(tmp_path, {"script": "web.js", key: HARMLESS[key]}).notes


def test_what_stands_beside_the_apps_is_named(tmp_path: Path) -> None:
    file = read(tmp_path, {"script": "web.js"}, deploy={"production": {}})
    assert [note.message for note in file.notes] == [f"{file.path}: line 7: deploy is not heeded"]


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"instnaces": 2}, "line 6: there is no key 'instnaces'", "did you mean 'instances'?"),
        ({"kill_timeout": True}, "line 6: kill_timeout: True is not a duration", "milliseconds"),
        ({"kill_timeout": -1}, "kill_timeout: -1 is not a duration", "milliseconds"),
        ({"kill_timeout": "soon"}, "line 6: web: kill_timeout: 'soon' is not a duration", "200ms"),
        ({"instances": "many"}, "web: instances: 'many' is not a number of workers", "max"),
        ({"exec_mode": "x"}, "line 6: exec_mode: 'x' is no mode", "cluster or fork"),
        ({"args": {}}, "args: {} is no list of words", "for example"),
        ({"args": "'"}, "No closing quotation", "close the quote"),
        ({"env": []}, "line 6: env: [] is not a table", "for example"),
        ({"env": {"A": {}}}, "env: A: {} is not a text", "quotes"),
        ({"cmd": "x"}, "line 6: script and cmd mean the same", "keep one"),
        ({"name": "a b"}, "line 4: name: 'a b' is not a name", "letters"),
        ({"namespace": "a b"}, "line 6: namespace: 'a b' is not a name", "letters"),
        ({"band": "x"}, "line 6: web: band: 'x' is not a whole number", "1 to"),
        ({"target": "x"}, "line 6: there is no key 'target'", "did you mean 'script'?"),
        ({"script": 3}, "line 5: script: 3 is not a text", "path"),
        ({"autostart": "no"}, "line 6: autostart: 'no' is neither", "true or false"),
    ],
)
def test_what_is_refused(tmp_path: Path, keys: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, **keys)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**15), st.floats(allow_nan=False), st.text(),
    st.lists(st.text() | st.integers() | st.none(), max_size=3),
    st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()), max_size=3),
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(sorted(THEIRS | {"env_x", "bogus", "listen", "bind", "env_file"})),
        VALUES,
        max_size=6,
    )
)
def test_any_value_is_taken_or_refused_by_name(entry: dict[str, Any]) -> None:
    file = ConfigFile(Path("/srv/ecosystem.json"), {"apps": [entry]})
    try:
        found = apps.of(file, "x" if "env_x" in entry else "")
        for name in found.apps:
            from_sources({}, {}, found.config(name))
    except ConfigError as error:
        assert "ecosystem.json" in error.message
        assert error.hint


def test_forms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    for text in ('{"script": "w.js"}', '[{"script": "w.js"}]', '{"pm2": {"script": "w.js"}}'):
        path.write_text(text)
        found = apps.load(path)
        assert found is not None
        assert list(found.apps) == ["w"]
    path.write_text(" " * (5 << 20))
    with pytest.raises(ConfigError, match="too long"):
        apps.load(path)
    for text in ("3", "[3]", '{"apps": []}', '{"apps": 3}', "{}", '{"apps": [], "x": 1}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="process.json"):
            apps.load(path)


def test_two_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 7: two apps are named web"):
        read(tmp_path, {"script": "web.js"}, {"name": "web", "script": "other.js"})


def test_what_does_not_start_by_itself(tmp_path: Path) -> None:
    file = read(tmp_path, {"script": "a.js", "autostart": False}, {"script": "b.js"})
    assert [app.name for app in file.chosen([])] == ["b"]
    assert [app.name for app in file.chosen(["a", "b", "a"])] == ["a", "b"]


@pytest.mark.parametrize("name", ["ecosystem.config.js", "x.config.cjs", "x.config.mjs"])
def test_a_program_is_told_how_to_become_data(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="this is a program") as caught:
        apps.load(tmp_path / name)
    assert f"node -{'e' if name.endswith('.mjs') else 'p'} '" in (caught.value.hint or "")


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "ecosystem.yaml"
    path.write_text("apps:\n  - script: web.js\n    kill_timeout: 3000\n    instnaces: 2\n")
    with pytest.raises(ConfigError, match="line 4: there is no key 'instnaces'"):
        apps.load(path)
    path.write_text("apps:\n  - script: web.js\n    kill_timeout: 3000\n")
    found = apps.load(path)
    assert found is not None
    assert settings(found).drain_timeout == 3.0


def test_yaml_without_its_reader_names_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "e.yml").write_text("script: web.js\n")
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from rrdispatch import apps; from rrdispatch.errors import MissingExtraError\n"
        "try: apps.load('e.yml')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert '-m pip install "rrdispatch[yaml]"' in done.stdout, done.stderr

"""Settings: sources and their order, every option three ways, what is refused and how."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.checks import name_of
from rrdispatch.cli.run import command
from rrdispatch.errors import ConfigError
from rrdispatch.files import ConfigFile
from rrdispatch.options import ELSEWHERE, Kind, duration
from rrdispatch.settings import (
    DEFAULTS,
    OPTIONS,
    Settings,
    flag,
    from_sources,
    from_values,
    load_env_file,
    load_file,
    misspelt,
    variables,
)

ROOT = Path(__file__).parent.parent


def config(**table: Any) -> ConfigFile:
    return ConfigFile(Path("/etc/shop/rrdispatch.toml"), table)


def other(key: str) -> tuple[str, Any, Any]:
    """(as text, as a TOML value, as the setting holds it) of a value that is not the default."""
    option = OPTIONS[key]
    special: dict[str, tuple[str, Any, Any]] = {
        "target": ("shop.main:app", "shop.main:app", "shop.main:app"),
        "stop_signal": ("SIGINT", "int", "INT"),
        "instances": ("3", 3, "3"),
        "bind": ("127.0.0.1:9", "127.0.0.1:9", ("127.0.0.1:9",)),
        "env": ("A=1", {"A": "1"}, {"A": "1"}),
        "forwarded_allow_ips": ("10.0.0.1",) * 3,
        "root_path": ("/some",) * 3,
    }
    if key in special:
        return special[key]
    if option.choices:
        value = next(c for c in option.choices if c != getattr(DEFAULTS, key))
        return value, value, value
    return {
        Kind.SWITCH: (str(not getattr(DEFAULTS, key)).lower(), *[not getattr(DEFAULTS, key)] * 2),
        Kind.INTEGER: ("7", 7, 7),
        Kind.DURATION: ("2m", 120, 120.0),
        Kind.SIZE: ("2M", 2097152, 2097152),
        Kind.PATH: ("/srv/x", "/srv/x", "/srv/x"),
        Kind.PROGRAM: ("python3", "python3", "python3"),
        Kind.LIST: ("one", ["one"], ("one",)),
        Kind.NUMBERS: ("3,0", [3, 0], (3, 0)),
        Kind.TEXT: ("some", "some", "some"),
    }[option.kind]


def typed(key: str, text: str) -> dict[str, Any]:
    """What click makes of the option."""
    arguments = [f"{flag(key)}={text}"]
    if OPTIONS[key].kind is Kind.SWITCH:
        arguments = [flag(key) if text == "true" else "--no-" + flag(key)[2:]]
    if key == "target":
        arguments = [text]
    if key == "arguments":
        arguments = ["server.py", "--", text]
    return dict(command.make_context("run", arguments).params)


@pytest.mark.parametrize("key", OPTIONS)
def test_every_setting_from_the_command_line(key: str) -> None:
    text, _, held = other(key)
    values = {k: v for k, v in typed(key, text).items() if k in OPTIONS and v not in (None, ())}
    assert getattr(from_sources(values, {}), key) == held


@pytest.mark.parametrize("key", [key for key in OPTIONS if variables(key)])
def test_every_setting_from_the_environment(key: str) -> None:
    text, _, held = other(key)
    for variable in variables(key):
        settings = from_sources({}, {variable: text})
        assert getattr(settings, key) == held
        assert settings.sources[key] == variable


@pytest.mark.parametrize("key", OPTIONS)
def test_every_setting_from_a_file(key: str) -> None:
    _, value, held = other(key)
    assert getattr(from_sources({}, {}, config(**{key: value})), key) == held
    assert getattr(from_sources({}, {}, config(**{key.replace("_", "-"): value})), key) == held


def test_command_line_before_environment_before_file_before_default() -> None:
    file = config(band=1)
    environ = {"RRDISPATCH_BAND": "2"}
    assert from_sources({"band": "3"}, environ, file).band == 3
    assert from_sources({}, environ, file).band == 2
    assert from_sources({}, {}, file).band == 1
    assert from_sources({}, {}).band == 8
    assert from_sources({"band": "3"}, environ, file).sources == {"band": "--band"}


def test_instances_from_our_variable_before_the_common_one() -> None:
    environ = {"WEB_CONCURRENCY": "2", "RRDISPATCH_INSTANCES": "3"}
    assert from_sources({}, environ).instances == "3"
    assert from_sources({}, {"WEB_CONCURRENCY": "2"}).sources["instances"] == "WEB_CONCURRENCY"
    assert from_sources({}, {"WEB_CONCURRENCY": ""}).instances == "max"


@pytest.mark.parametrize("text", ["abc", "0.5", "", " ", "0", "00", "+2", "٣", "1e3", "--1", "257"])
def test_instances_refuses_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources({"instances": text}, {})
    assert caught.value.message.startswith("--instances: ")
    assert repr(text.strip()) in caught.value.message or text in caught.value.message
    assert caught.value.hint


def test_port_changes_the_default_bind_only() -> None:
    assert from_sources({}, {"PORT": "9000"}).bind == ("127.0.0.1:9000",)
    assert from_sources({"bind": ("::1",)}, {"PORT": "9000"}).bind == ("::1",)
    assert from_sources({}, {"PORT": "9000"}, config(bind=":1")).bind == (":1",)
    with pytest.raises(ConfigError, match="PORT: '80000' is not a port"):
        from_sources({}, {"PORT": "80000"})


def test_a_workers_own_name_is_no_setting_inside_it() -> None:
    environ = {"RRDISPATCH_NAME": "outer", "RRDISPATCH_PROTOCOL": "1"}
    assert from_sources({"target": "inner:app"}, environ).name == "inner"
    assert from_sources({"target": "a:b"}, {"RRDISPATCH_NAME": "outer"}).name == "outer"


def test_a_misspelt_variable_is_found_and_the_protocols_own_are_not() -> None:
    wrong = {
        "RRDISPATCH_INSTANCE": "RRDISPATCH_INSTANCES",
        "RRDISPATCH_DRAIN_TIMOUT": "RRDISPATCH_DRAIN_TIMEOUT",
    }
    protocol = ("PROTOCOL", "NAME", "SLOT", "GENERATION", "WORKERS", "LISTENERS", "SCOREBOARD",
                "NOTIFY", "LIFELINE", "APP", "PURE", "HOME", "SOCKET")  # fmt: skip
    environ = dict.fromkeys([*wrong, *(f"RRDISPATCH_{name}" for name in protocol), "PATH"], "1")
    assert misspelt(environ) == wrong


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("app:app", "app"),
        ("shop.main:app", "shop"),
        ("shop.wsgi:application", "shop"),
        ("examples.hello:app", "hello"),
        ("main:app", "main"),
        ("hello.py:app", "hello"),
        ("", "app"),
    ],
)
def test_the_name_is_made_from_the_target(target: str, name: str) -> None:
    assert name_of(target) == name


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0.0), (0.2, 0.2), ("0.2", 0.2), ("200ms", 0.2), ("3s", 3.0), ("1m", 60.0), ("2 h", 7200.0),
     ("1d", 86400.0), (".5", 0.5)],
)  # fmt: skip
def test_durations(value: object, seconds: float) -> None:
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["soon", "", "-1", -1, True, "1 week", float("nan"), "1e3", None])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(value)


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert duration(text) >= 0
    except ValueError as error:
        assert "is not a duration" in str(error)


@given(st.sampled_from(sorted(OPTIONS)), st.one_of(st.text(), st.integers(), st.floats(), st.none(),
       st.booleans(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))  # fmt: skip
def test_any_value_is_taken_or_refused_by_name(key: str, value: object) -> None:
    try:
        settings = from_sources({}, {}, config(**{key: value}))
    except ConfigError as error:
        assert key in error.message
        assert error.hint
    else:
        assert from_values({k: v for k, v in settings.values().items() if v is not None}).values()


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"drain_timout": 3}, "no setting 'drain_timout'", "did you mean 'drain_timeout'?"),
        ({"rrdispatch": {"band": 3}}, "no table [rrdispatch]", "at the top of the file"),
        ({"instances": 2.5}, "instances: '2.5' is not a number of workers", "from 1"),
        ({"instances": True}, "instances: 'True' is not a number of workers", "from 1"),
        ({"zzzzzz": 3}, "no setting 'zzzzzz'", "docs/configuration.md lists them all"),
        ({"band": "many"}, "band: 'many' is not a whole number", "1 to 1000000"),
        ({"band": True}, "band: True is not a whole number", "1 to 1000000"),
        ({"queue_limit": 70}, "queue_limit: 70 is out of range", "1 to 69"),
        ({"policy": "robin"}, "policy: 'robin' is not one of its values", "round-robin"),
        ({"access_log": "perhaps"}, "access_log: 'perhaps' is neither on nor off", "true or false"),
        ({"drain_timeout": []}, "drain_timeout: [] is not a duration", "200ms"),
        ({"bind": [1]}, "bind: [1] is not a list of texts", "for example"),
        ({"name": "a b"}, "name: 'a b' is not a name", "letters"),
        ({"env": {"A": 1}}, "env: A: 1 is not a text", 'A = "1"'),
        ({"env": "A"}, "env: 'A' is not a table", "DEBUG"),
        ({"stop_signal": "KILL"}, "stop_signal: 'KILL' is not a signal", "TERM"),
        ({"target": "shop/app.py:app"}, "is not MODULE:ATTRIBUTE", "--cwd"),
        ({"target": "app:"}, "target: 'app:' is not MODULE:ATTRIBUTE", "app:app"),
        ({"forwarded_allow_ips": "10.0.0.1,abc"}, "'abc' is no address or network", "10.0.0.0/8"),
        ({"forwarded_allow_ips": "10.0.0.0/99"}, "'10.0.0.0/99' is no address", "10.0.0.0/8"),
        ({"root_path": "api"}, "root_path: 'api' is not the path of a URL", "slash: /api"),
        ({"target": "app:make()"}, "is not MODULE:ATTRIBUTE", "app:make with --factory"),
        ({"drain_timeout": 1, "drain-timeout": 2}, "drain_timeout is said twice", "one spelling"),
        ({"drain_timeout": 1e12}, "is too long", "a year"),
    ],
)
def test_what_a_file_may_not_say(table: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources({}, {}, config(**table))
    assert message in caught.value.message
    assert "rrdispatch.toml" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_paths_start_from_the_file_that_names_them(tmp_path: Path) -> None:
    settings = from_sources({"ssl_keyfile": "key"}, {}, config(cwd="..", python="./bin/py"))
    assert settings.cwd == "/etc/shop/.."
    assert settings.python == "/etc/shop/./bin/py"
    assert settings.ssl_keyfile == str(Path.cwd() / "key")
    assert from_sources({"python": "python3.11"}, {}).python == "python3.11"


def test_values_make_the_same_settings_again() -> None:
    settings = from_sources({"target": "a.b:c", "bind": (":1", ":2"), "env": ("A=1",)}, {})
    again = from_values({k: v for k, v in settings.values().items() if v is not None})
    assert again == settings


def test_an_unknown_keyword_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"(?s)Cluster: .*'instancs'.*mean 'instances'"):
        from_values({"instancs": 3})
    with pytest.raises(ConfigError, match=r"(?s)no setting 'worker_connections'.*'limit_conc"):
        from_values({"worker_connections": 3})


def test_what_other_servers_call_a_setting_is_one_of_ours() -> None:
    assert set(ELSEWHERE.values()) <= set(OPTIONS)
    assert not set(ELSEWHERE) & set(OPTIONS)


def test_what_the_app_is_told_is_plain_and_complete() -> None:
    told = Settings(target="a:b").app()
    assert told["target"] == "a:b"
    assert {"interface", "threads", "drain_timeout", "ssl_certfile", "access_log"} <= told.keys()
    assert not {"env", "bind", "policy", "instances"} & told.keys()


def test_the_documented_tables_are_those_of_the_declaration() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert generate.page(text) == text, "run `make docs`"


def test_every_field_but_sources_is_declared() -> None:
    names = {item.name for item in dataclasses.fields(Settings)}
    assert names - OPTIONS.keys() == {"sources"}


# ---- files


def test_own_file_before_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_file() is None
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\n")
    assert load_file() is None
    project.write_text("[tool.rrdispatch]\nband = 3\n")
    found = load_file()
    assert found is not None
    assert found.table == {"band": 3}
    (tmp_path / "rrdispatch.toml").write_text("band = 4\n")
    found = load_file()
    assert found is not None
    assert found.table == {"band": 4}


def test_a_strangers_broken_pyproject_is_not_our_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.other\n")
    assert load_file() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('target = "a:b"\nband 3\n', "line 2, column"),
        ('target = "a:b"\n[env]\nA = "1', "line 3: the file ends too early"),
        ("band = 1\nband = 2\n", "line 2"),
    ],
)
def test_a_half_written_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rrdispatch.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert caught.value.message.startswith(f"{path}: {message}")
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_file(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_file(tmp_path / "bad.toml")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(ConfigError, match=r"no \[tool.rrdispatch\] table"):
        load_file(tmp_path / "pyproject.toml")


def test_env_files(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        "# comment\n\nA=1\nexport B = two words # why\nC='a # b'\nD=\"x\\ny\" # z\nE=\nF=a#b\n"
    )
    assert load_env_file(path) == {
        "A": "1", "B": "two words", "C": "a # b", "D": "x\ny", "E": "", "F": "a#b",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["nothing", "=1", '"A"=1', "A='open", "1A=2", 'A="open'])
def test_an_env_files_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "env"
    path.write_text(f"A=1\n{line}\n")
    with pytest.raises(ConfigError, match="line 2: .* is not KEY=VALUE"):
        load_env_file(path)

"""Several apps in rrdispatch.toml: what is shared, what is an app's own, what is refused where."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrdispatch import apps
from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings, from_sources

SHOP = """\
drain_timeout = "5s"
namespace = "shop"
[env]
A = "1"
B = "1"

[apps.web]
target = "shop:app"
env = {B = "2"}
drain-timeout = "9s"

[apps.jobs]
target = "jobs.py"
cwd = "work"
namespace = "back"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rrdispatch.toml"
    path.write_text(SHOP)
    return path


def settings(file: Path, name: str = "") -> Settings:
    return from_sources({}, {}, apps.config(file, name))


def test_each_app_has_its_own_and_what_is_shared(file: Path) -> None:
    web, jobs = settings(file, "web"), settings(file, "jobs")
    assert (web.name, web.target, web.drain_timeout) == ("web", "shop:app", 9.0)
    assert (jobs.name, jobs.target, jobs.drain_timeout) == ("jobs", "jobs.py", 5.0)
    assert (web.env, jobs.env) == ({"A": "1", "B": "2"}, {"A": "1", "B": "1"})
    assert jobs.cwd == str(file.parent / "work")
    assert settings(file).drain_timeout == 5.0  # for a TARGET of one's own
    found = apps.load(file)
    assert found is not None
    assert [app.namespace for app in found.apps.values()] == ["shop", "back"]


def test_it_is_said_where_a_value_came_from(file: Path) -> None:
    assert settings(file, "web").sources["drain_timeout"] == (
        "rrdispatch.toml: apps.web.drain-timeout"
    )
    assert settings(file, "jobs").sources["drain_timeout"] == "rrdispatch.toml: drain_timeout"


def test_a_file_of_one_app_is_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.rrdispatch]\ntarget = "a:b"\nnamespace = "x"\n')
    found = apps.load(path)
    assert found is not None
    assert (found.apps, found.namespace) == ({}, "x")
    assert settings(path).target == "a:b"


def test_in_pyproject(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.rrdispatch.apps.web]\ntarget = "a:b"\nband = "x"\n')
    with pytest.raises(ConfigError, match=r"pyproject.toml: line 3: apps.web.band: 'x' is not"):
        settings(path, "web")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[app.web]\n", "line 1: there is no setting 'app'", "did you mean 'apps'?"),
        ("[apps.web]\nbandd = 1\n", "line 2: there is no setting 'bandd'", "did you mean 'band'?"),
        ("bandd = 1\n[apps.web]\n", "line 1: there is no setting 'bandd'", "did you mean 'band'?"),
        ("[apps.web]\nname = 'x'\n", "line 2: apps.web.name: the name of an app", "[apps.x]"),
        ("name = 'x'\n[apps.web]\n", "line 1: name stands above several apps", "[apps.NAME]"),
        ("[apps.'a b']\n", "line 1: apps: 'a b' is not a name", "letters"),
        ("apps = 3\n", "line 1: apps holds a table per app", "[apps.web]"),
        ("[[apps]]\n", "line 1: apps holds a table per app", "[apps.web]"),
        ("[apps]\n", "line 1: apps is empty", "[apps.web]"),
        ("[apps]\nweb = 1\n", "apps holds a table per app", "[apps.web]"),
        ("namespace = 'a b'\n", "line 1: namespace: 'a b' is not a name", "letters"),
        ("namespace = 3\n", "line 1: namespace: 3 is not a text", "quotes"),
        ("[apps.web]\nband = 1\nband = 2\n", "line 3", "mend"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "rrdispatch.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        apps.load(path)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_values_are_refused_by_their_place(file: Path) -> None:
    file.write_text(SHOP.replace('"9s"', '"soon"'))
    with pytest.raises(ConfigError) as caught:
        settings(file, "web")
    assert caught.value.message == (
        "rrdispatch.toml: line 10: apps.web.drain-timeout: 'soon' is not a duration"
    )


def test_an_app_that_is_not_there_names_the_nearest(file: Path) -> None:
    with pytest.raises(ConfigError, match="there is no app 'wob'") as caught:
        settings(file, "wob")
    assert caught.value.hint == "did you mean web?"

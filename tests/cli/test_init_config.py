"""init writes what can be read again; config check says what a file would do, or what is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cli import init
from rrdispatch.cli.group import run
from rrdispatch.settings import DEFAULTS, OPTIONS, from_sources, load_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uncommented(text: str) -> str:
    return re.sub(
        r"^# (?=[a-z_]+ = )", "", text.partition("# ---- Variables")[0], flags=re.MULTILINE
    )


def test_every_setting_is_in_it_with_its_default() -> None:
    table = tomllib.loads(uncommented(init.text()))
    assert set(table) == set(OPTIONS) - {"env"}
    for key, value in table.items():
        default = getattr(DEFAULTS, key)
        found = getattr(from_sources({}, {}, _file({key: value})), key)
        if default is not None and default != "":
            assert found == default, key


def _file(table: dict[str, Any]) -> Any:
    from rrdispatch.files import ConfigFile

    return ConfigFile(Path("/x/rrdispatch.toml"), table)


def test_as_it_is_written_it_says_nothing_and_with_a_target_only_that(here: Path) -> None:
    assert run(["init", "shop.main:app"]) == 0
    found = load_file()
    assert found is not None
    assert found.table == {"target": "shop.main:app"}
    assert max(map(len, (here / "rrdispatch.toml").read_text().splitlines())) <= 100
    assert tomllib.loads(init.text()) == {}
    several = init.text().partition("# ---- Several")[2]
    table = tomllib.loads(
        re.sub(r"^# ?(?=\[|[a-z]+ = |$)", "", several.partition("\n")[2], flags=re.MULTILINE)
    )
    assert list(table["apps"]) == ["web", "jobs"]


def test_it_never_overwrites(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "rrdispatch.toml").write_text("# mine\n")
    assert run(["init"]) == 2
    assert (here / "rrdispatch.toml").read_text() == "# mine\n"
    assert "it is left as it is" in capsys.readouterr().err
    (here / "rrdispatch.toml").unlink()
    (here / "elsewhere").write_text("")
    (here / "rrdispatch.toml").symlink_to("elsewhere")
    assert run(["init"]) == 2
    assert (here / "elsewhere").read_text() == ""


def test_it_does_not_hide_what_pyproject_says(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.rrdispatch]\nband = 3\n")
    assert run(["init"]) == 2
    assert not (here / "rrdispatch.toml").exists()
    assert run(["init", "shop/app.py:app"]) == 2


GOOD = """\
drain_timeout = "5s"
[apps.web]
target = "shop.main:app"
instances = 2
[apps.jobs]
target = "sleep"
arguments = ["1000"]
listen = false
instances = 1
"""


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["config", "check", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_good_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "rrdispatch.toml").write_text(GOOD)
    code, out, err = check(capsys)
    assert (code, err) == (0, "")
    assert "web: shop.main:app, 2 workers, on 127.0.0.1:8000\n" in out
    assert "jobs: sleep 1000, 1 worker, without a listener\n" in out
    assert "as asked (rrdispatch.toml: apps.web.instances)" in out
    assert check(capsys, "--only", "web")[1].count("\n") == 2
    (here / "other").mkdir()
    (here / "rrdispatch.toml").rename(here / "other" / "rrdispatch.toml")
    assert check(capsys, "other/rrdispatch.toml") == (0, out, "")


@pytest.mark.parametrize(
    ("before", "after", "code", "messages"),
    [
        ("instances = 2", "instances = 0\nband = 'x'", 2,
         ("line 4: apps.web.instances: '0'", "line 5: apps.web.band: 'x'")),
        ('"5s"', '"soon"', 2, ("line 1: drain_timeout: 'soon'",)),
        ("drain_timeout", "drain_timout", 2, ("line 1: there is no setting 'drain_timout'",
         "did you mean 'drain_timeout'?")),
        ('"5s"', '"5s', 2, ("line 1, column",)),
        ('target = "sleep"', 'target = "sleeeep"', 4, ("jobs: 'sleeeep' is no app",)),
        ("listen = false", 'env_file = "x"', 2, ("apps.jobs.env_file: ", "does not exist")),
        ('target = "sleep"', "", 2, ("jobs: TARGET is missing",)),
        ('target = "sleep"\narguments = ["1000"]\nlisten = false', 'target = "a:b"', 2,
         ("web and jobs both listen on 127.0.0.1:8000",)),
    ],
)  # fmt: skip
def test_a_bad_one(
    here: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, code: int,
    messages: tuple[str, ...],
) -> None:  # fmt: skip
    assert before in GOOD
    (here / "rrdispatch.toml").write_text(GOOD.replace(before, after))
    found = check(capsys)
    assert (found[0], found[1]) == (code, ""), found
    assert all(message in found[2] for message in messages), found[2]


def test_what_is_shared_is_told_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "rrdispatch.toml").write_text(GOOD.replace("5s", "soon"))
    assert check(capsys)[2].count("error: ") == 1


def test_no_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys)[0] == 2
    assert check(capsys, "none.toml")[0] == 2
    assert check(capsys, "shop:app")[0] == 2


def test_pm2s(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.sh").write_text("#!/bin/sh\n")
    app = {"script": "run.sh", "vizion": True, "kill_timeout": "x", "env_test": {}}
    (here / "e.json").write_text(json.dumps([app]))
    code, _, err = check(capsys, "e.json")
    assert code == 2
    assert "vizion is not heeded" in err
    assert "run: kill_timeout: 'x' is not a duration" in err
    (here / "e.json").write_text(json.dumps([{**app, "kill_timeout": 3}]))
    assert check(capsys, "e.json", "--env", "test")[0] == 0
    assert check(capsys, "e.json", "--env", "tets")[0] == 2

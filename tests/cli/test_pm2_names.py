"""What a pm2 user types: their commands' other names, and their options, in their units."""

from __future__ import annotations

import click
import pytest

from rrdispatch.cli.group import ALIASES, COMMANDS, Commands
from rrdispatch.cli.pm2 import instead, translated
from rrdispatch.cli.secrets import MASK, mask
from rrdispatch.errors import ConfigError
from rrdispatch.settings import from_sources
from tests.cli.plane import Plane


@pytest.mark.parametrize("alias", ALIASES)
def test_other_names_are_the_same_command(alias: str) -> None:
    group, context = Commands(), click.Context(click.Command("rrdispatch"))
    assert ALIASES[alias] in COMMANDS
    assert group.get_command(context, alias) is group.get_command(context, ALIASES[alias])


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ({"pm2_kill_timeout": "3000"}, {"drain_timeout": "3000ms"}),
        ({"pm2_listen_timeout": "5s"}, {"ready_timeout": "5s"}),
        ({"pm2_restart_delay": "100"}, {"respawn_delay": "100ms"}),
        ({"pm2_kill_timeout": "3000", "drain_timeout": "1s"}, {"drain_timeout": "1s"}),
        ({"pm2_name": "web", "name": None}, {"name": "web"}),
        ({"pm2_user": "www", "pm2_group": "7"}, {"user": "www", "group": "7"}),
        ({"pm2_exp_backoff_restart_delay": "0.5"}, {"respawn_delay": "0.5ms"}),
        ({"pm2_disable_logs": True}, {"log_file": "/dev/null"}),
        ({"pm2_kill_timeout": None, "pm2_name": None, "name": "x"}, {"name": "x"}),
    ],
)
def test_their_options_in_milliseconds(typed: dict[str, str], given: dict[str, str]) -> None:
    assert translated(typed) == given


@pytest.mark.parametrize(
    ("typed", "given"), [("1000", "1000ms"), ("99", "99"), ("1000s", "1000s"), ("5m", "5m")]
)
def test_an_uptime_that_nobody_means_in_seconds(
    typed: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert translated({"min_uptime": typed}) == {"min_uptime": given}
    said = capsys.readouterr().err
    assert ("say the unit: 1000ms, or 1000s" in said) == (typed != given)


def test_an_error_has_the_name_that_was_typed() -> None:
    with pytest.raises(ConfigError, match="--kill-timeout: 'abc' is not a duration"):
        translated({"pm2_kill_timeout": "abc"})


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--watch-delay", "changes are gathered"),
        ("--no-vizion", "version of the source"),
        ("--interpreter-args", "node --inspect"),
        ("-p", "rrdispatch pid"),
        ("--bogus", None),
    ],
)
def test_what_is_not_here_says_what_does_the_work(flag: str, words: str | None) -> None:
    found = instead(flag)
    assert found is None if words is None else words in (found or "")


def test_they_come_to_the_right_settings() -> None:
    settings = from_sources(translated({"pm2_kill_timeout": "3000", "target": "a:b"}), {})
    assert settings.drain_timeout == 3.0


def test_as_they_are_typed(plane: Plane) -> None:
    job = ("--no-listen", "--", "sleep", "1000")
    plane.ok("start", "-n", "job", "-i", "1", "--kill-timeout", "1500", "--min-uptime", "0", *job)
    assert "drain_timeout  1.5" in plane.ok("info", "job")
    assert plane.ok("sendSignal", "SIGCONT", "job").startswith("job: sent to ")
    assert plane.ok("del", "job") == "job: deleted\n"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("API_KEY", "x", MASK),
        ("aws_secret_access_key", "x", MASK),
        ("DB_PASSWORD", "x", MASK),
        ("SENTRY_DSN", "x", MASK),
        ("KEY", "x", MASK),
        ("TOKEN", "", ""),
        ("PWD", "/home/me", "/home/me"),
        ("KEYBOARD", "de", "de"),
        ("REDIS_URL", "redis://:pw@host:1/0", f"redis://:{MASK}@host:1/0"),
        ("DB_PASS", "x", MASK),
        ("PASS_SMTP", "x", MASK),
        ("COMPASS", "north", "north"),
        ("DB", "pg://me:p@ss/w:rd@db:5432/x?a=b", f"pg://me:{MASK}@db:5432/x?a=b"),
        ("DB", "pg://me@corp:p@db/x", f"pg://me@corp:{MASK}@db/x"),
        ("DB", "pg://me:12345@db/x", f"pg://me:{MASK}@db/x"),
        ("DB", "psql 'pg://me:x@db' y@z", f"psql 'pg://me:{MASK}@db' y@z"),
        ("DB", "pg://db:5432/x?mail=a@b", "pg://db:5432/x?mail=a@b"),
        ("HOME_PAGE", "http://host:80/a@b", "http://host:80/a@b"),
    ],
)
def test_what_is_masked(key: str, value: str, shown: str) -> None:
    assert mask(key, value) == shown

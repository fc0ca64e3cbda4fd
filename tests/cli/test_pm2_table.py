"""The tables of docs/pm2.md: all that pm2 has is in them; what they say we have is there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache

import click
import pytest

from rrdispatch.cli.group import ALIASES, COMMANDS
from tests.harness.servers import ROOT

# pm2 7.0.4, `pm2 --help` and its schema.json
PM2_COMMANDS = re.findall(
    r"\S+",
    """
    start stop restart reload delete del scale list ls l ps status slist report jlist prettylist
    describe desc show info env id pid logs flush reloadLogs logrotate reset sendSignal ping save
    dump cleardump resurrect kill update startup unstartup monit dash imonit serve ecosystem init
    install uninstall set get unset conf module deploy link plus trigger send attach
""",
)
PM2_OPTIONS = re.findall(
    r"\S+",
    """
    -i --instances -n --name --namespace --cwd --interpreter --interpreter-args --node-args --port
    --user --uid --gid --env --filter-env --instance-var --increment-var -o --output -e --error -l
    --log --time --log-date-format --log-type --merge-logs --disable-logs -p --pid --max-restarts
    --min-uptime --restart-delay --exp-backoff-restart-delay --max-memory-restart --cron
    --cron-restart --no-autorestart --stop-exit-codes -k --kill-timeout --listen-timeout
    --wait-ready --shutdown-with-message --no-treekill --watch --ignore-watch --watch-delay
    --no-vizion --no-pmx --update-env -f --force --only --parallel --no-daemon -s --silent --lines
    --raw --err --out --json --format --timestamp --nostream --highlight
""",
)


def rows() -> Iterator[tuple[str, str, str]]:
    for line in (ROOT / "docs" / "pm2.md").read_text().splitlines():
        if line.startswith("| `"):
            pm2, here, difference = (cell.strip() for cell in line.strip("|").split(" | "))
            yield pm2, here, difference


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def options(name: str) -> frozenset[str]:
    """Of one command, hidden ones too."""
    command: click.Command = importlib.import_module(f"rrdispatch.cli.{name}").command
    found = {"--help", "--version"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return frozenset(found)


@cache
def everywhere() -> frozenset[str]:
    return frozenset().union(*(options(name) for name in COMMANDS))


def missing(code: str, name: str | None = None) -> list[str]:
    """What of a line to be typed is not there. ``name``: of the command if it names none."""
    words = code.split(" -- ")[0].split()
    if words[0] in ("rrdispatch", "pm2"):
        name = ALIASES.get(words[1], words[1])
        if name not in COMMANDS:
            return [name]
    known = options(name) if name else everywhere()
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [f"{name or ''} {word}" for word in given if word not in known]


def test_all_that_pm2_has_is_in_it() -> None:
    shown = [code for pm2, _, _ in rows() for code in codes(pm2)]
    commands = {code.split()[1] for code in shown if code.startswith("pm2 ")}
    assert sorted(set(PM2_COMMANDS) - commands) == []
    given = {word for code in shown for word in code.split() if word.startswith("-")}
    assert sorted(set(PM2_OPTIONS) - given) == []


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row[0])
def test_what_it_says_is_so(row: tuple[str, str, str]) -> None:
    pm2, here, difference = row
    if here.startswith("the same"):
        of = "logs" if pm2.endswith("of `logs`") else None if pm2.startswith("`pm2 ") else "start"
        for code in codes(pm2.removesuffix("of `logs`")):
            assert missing(code, of) == [], code
    if here == "not here":
        there = [
            code
            for code in codes(pm2.removesuffix("of `logs`"))
            if not missing(code, anywhere(pm2))
        ]
        assert there == [], f"{there} are here by now"
    for code in [*codes(here), *(c for c in codes(difference) if not c.startswith("--no-"))]:
        if code.startswith(("rrdispatch ", "--", "-l")) and "=" not in code.split()[0]:
            assert missing(code) == [], code


def anywhere(pm2: str) -> str | None:
    """Options of ``start`` are looked for there only: others have their own of that name."""
    return None if pm2.startswith("`pm2") else "logs" if "`logs`" in pm2 else "start"


def test_a_lie_is_found() -> None:
    assert missing("rrdispatch start --nosuch app.py") == ["start --nosuch"]
    assert missing("rrdispatch fly") == ["fly"]
    assert missing("pm2 list --workers") == []
    assert missing("rrdispatch start -- node --inspect server.js") == []

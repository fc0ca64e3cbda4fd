"""Documents point at what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from rrdispatch import Cluster
from rrdispatch.cli.group import COMMANDS
from rrdispatch.settings import OPTIONS, flag, from_values

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    if page.name == "pm2.md":
        pytest.skip("names pm2's, too: tests/cli/test_pm2_table.py tells them apart")
    known = {flag(key) for key in OPTIONS} | {"--no-" + flag(key)[2:] for key in OPTIONS}
    known |= {short for option in OPTIONS.values() for short in option.flags}
    known |= commands_options()
    known |= {"--config", "--json", "--strict", "--version", "--interface"}
    text = page.read_text()
    if page.name.startswith("from-"):
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)  # theirs; below
        text = re.sub(
            r"^    (gunicorn|uvicorn) .*|^What is not in the table.*| -- .*",
            "",
            text,
            flags=re.MULTILINE,
        )
    for line in re.findall(r"rrdispatch run .*|`(--[a-z][a-z-]+)", text):
        for option in re.findall(r"--[a-z][a-z-]+", line):
            assert option in known, option


def test_all_of_uvicorns_options_are_told() -> None:
    main = importlib.import_module("uvicorn.main").main
    theirs = {name for parameter in main.params for name in parameter.opts if name[:2] == "--"}
    assert told("uvicorn") == theirs


def test_gunicorns_options_are_gunicorns() -> None:
    config = importlib.import_module("gunicorn.config")
    theirs = {name for setting in config.KNOWN_SETTINGS for name in setting.cli or ()}
    assert told("gunicorn") <= theirs
    assert len(told("gunicorn")) > 40


def told(program: str) -> set[str]:
    """What stands in the first column of its page's first table."""
    page = (ROOT / "docs" / f"from-{program}.md").read_text()
    table = page.partition(f"| {program} |")[2].partition("\n\n")[0]
    cells = " ".join(row.split("|")[1] for row in table.splitlines()[2:])
    return set(re.findall(r"`(-[a-zA-Z0-9-]+)`", cells))


def test_embedding_names_what_there_is() -> None:
    text = (ROOT / "docs" / "embedding.md").read_text()
    table = text.partition("| `Cluster` |")[2].partition("\n\n")[0]
    cells = " ".join(row.split("|")[1] for row in table.splitlines()[2:])
    names = re.findall(r"`([a-z_]+)(?:\([a-z.]*\))?[`,]", cells)
    assert len(names) > 10
    there = {*dir(Cluster), *vars(Cluster("a:b")), "with", "on_event"}
    assert [name for name in names if name not in there] == []


def commands_options() -> set[str]:
    """Of all commands, hidden ones too."""
    found: set[str] = set()
    for name in COMMANDS:
        command = importlib.import_module(f"rrdispatch.cli.{name}").command
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"`(rrdispatch )?{name}[` ]", page), name


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_tests_that_are_named_exist() -> None:
    """A claim with a test that is gone is a claim without one."""
    text, known = (ROOT / "docs" / "security.md").read_text(), ""
    for path in set(re.findall(r"`(tests/[a-z_/]+\.py)`", text)):
        known += (ROOT / path).read_text()
    for name in set(re.findall(r"`(test_[a-z0-9_]+)`", text)):
        assert f"def {name}(" in known, name


def test_every_page_is_in_the_sites_menu() -> None:
    """`make docs-site` says so too, where it can be run."""
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r": ([a-z0-9-]+\.md)$", menu, re.MULTILINE))


def test_forms_of_a_target_are_accepted() -> None:
    page = (ROOT / "docs" / "workers.md").read_text()
    table = page.partition("| target |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    forms = re.findall(r"`([^`]+)`", " ".join(cells))
    assert forms
    for form in forms:
        from_values({"target": form.split()[0]})

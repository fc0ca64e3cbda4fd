"""Texts of files: the data, the line of each key, and the line of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.files import jsonc, toml, yamls
from rrdispatch.files.problem import Problem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_any_json_is_read_as_json_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert jsonc.plain(text) == text
        assert jsonc.load(text) == value
        jsonc.lines(text)


def test_comments_and_commas_too_many() -> None:
    text = """// the shop
    {"apps": [ /* one
      of many */
      {"name": "a//b", "script": "/* no comment */",}, // here
    ],}
    """
    found = {"apps": [{"name": "a//b", "script": "/* no comment */"}]}
    assert jsonc.load(text) == found
    assert jsonc.lines(text)[("apps", "0", "script")] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b" 2}', "line 2, column"),
        ('{"a": 1,\n "b": [1, 2', "line 2, column"),
        ('{"a": 1, "a": 2}', "a is said twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100000, "nested too deep"),
        ("", "line 1"),
        ('{"a": "' + "\n", "line 1"),
    ],
)
def test_what_is_no_json(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message):
        jsonc.load(text)


def test_lines_of_json_go_by_the_way_to_a_key() -> None:
    text = '{"a": [{"x": 1},\n {"x": 2,\n "y": {"x": 3}}],\n "x": "}"}'
    found = {way: line for way, line in jsonc.lines(text).items() if way[-1] == "x"}
    assert found == {("a", "0", "x"): 1, ("a", "1", "x"): 2, ("a", "1", "y", "x"): 3, ("x",): 4}


def test_lines_of_toml() -> None:
    text = (
        'band = 1\n[apps.web]\n# x = 1\ntarget = "a:b"\n[apps."my app".env]\n"A" = "1"\nb.c = 2\n'
    )
    assert toml.lines(text) == {
        ("band",): 1, ("apps",): 2, ("apps", "web"): 2, ("apps", "web", "target"): 4,
        ("apps", "my app"): 5, ("apps", "my app", "env"): 5, ("apps", "my app", "env", "A"): 6,
        ("apps", "my app", "env", "b"): 7, ("apps", "my app", "env", "b", "c"): 7,
    }  # fmt: skip


YAML = """
base: &base
  cwd: .
apps:
  - <<: *base
    name: web
    env: {A: on, B: 12:30:00, C: 0777, D: 1.5, E: ~, F: "1", G: true, H: no}
    args:
      - --x
"""


def test_yaml_is_yaml_1_2() -> None:
    data, lines = yamls.load(YAML, "x")
    assert data["apps"] == [
        {
            "cwd": ".", "name": "web", "args": ["--x"],
            "env": {"A": "on", "B": "12:30:00", "C": 777, "D": 1.5, "E": None, "F": "1", "G": True,
                    "H": "no"},
        }
    ]  # fmt: skip
    assert lines[("apps", "0", "env", "D")] == 7
    assert lines[("apps", "0", "args")] == 8


@given(VALUES)
def test_yaml_reads_what_was_written(value: Any) -> None:
    assert yamls.load(yaml.safe_dump(value, default_style='"'), "x")[0] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\n", "line 3, column 1"),
        ("a: 1\na: 2\n", "line 2: a is said twice"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: .*system: tags are not read"),
        ("a: !x 1\n", "!x: tags are not read"),
        ("a: &a [*a]\n", "part of what it stands for"),
        ("? [a]\n: 1\n", "a key is no word"),
        ("a: 1\n--- \nb: 2\n", "line 2"),
        ("a: " + "[" * 3000, "nested too deep|line"),
        ("\x00", "."),
    ],
)
def test_what_is_no_yaml_of_ours(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message):
        yamls.load(text, "x")


def test_aliases_are_not_multiplied() -> None:
    rows = ["a0: &a0 [x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    data, _ = yamls.load("\n".join(rows), "x")
    assert data["a29"][0] is data["a29"][9]

"""What the package promises about what it needs: bounds, the lock, a reason for each dependency."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lower_bounds_only(project: dict[str, Any], lock: ModuleType) -> None:
    for text in lock.direct(project):
        requirement = text.partition(";")[0]
        assert re.fullmatch(r"[A-Za-z0-9-]+(\[[a-z0-9,-]+\])?>=[0-9.]+\s*", requirement), text


def test_all_is_every_other_extra(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    others = ",".join(name for name in extras if name != "all")
    assert extras["all"] == [f"rrdispatch[{others}]"]


def test_each_dependency_has_its_reason(project: dict[str, Any], lock: ModuleType) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    told = {name for row in re.findall(r"^\| ([a-z].*?) \|", page, re.MULTILINE)
            for name in row.split(", ")}  # fmt: skip
    asked = {re.split(r"[\[>;]", text)[0].strip() for text in lock.direct(project)}
    assert asked == told - {"package"}


def test_the_lock_satisfies_the_bounds(
    lock: ModuleType, project: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    locked = tomllib.loads((ROOT / "pylock.toml").read_text())
    versions = {package["name"]: package["version"] for package in locked["packages"]}
    asked = [re.match(r"([a-z-]+)(?:\[.*?\])?>=([\d.]+)", text) for text in lock.direct(project)]
    for found in asked:
        assert found is not None
        if found[1] != "tomli":  # not needed by the interpreter that the lock is for
            assert number(versions[found[1]]) >= number(found[2]), found[0]


def test_the_lock_names_no_place_and_hashes_all() -> None:
    text = (ROOT / "pylock.toml").read_text()
    assert "://" not in text
    assert text.count("[[packages]]") == len(re.findall(r'sha256 = "[0-9a-f]{64}"', text))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))

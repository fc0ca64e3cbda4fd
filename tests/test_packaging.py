"""What the package promises about what it needs: bounds, the lock, a reason for each dependency."""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
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


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    return tool("lock")


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return tool("wheels")


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


def elf(machine: int, glibc: bytes = b"") -> bytes:
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + glibc


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("manylinux_2_17_x86_64", elf(62, b"GLIBC_2.17\0GLIBC_2.2.5"), ""),
        ("manylinux_2_17_x86_64", elf(62, b"GLIBC_2.34"), "needs glibc 2.34"),
        ("manylinux_2_17_aarch64", elf(62), "is for x86_64"),
        ("musllinux_1_2_aarch64", elf(183), ""),
        ("musllinux_1_2_aarch64", elf(183, b"GLIBC_2.17"), "needs glibc 2.17"),
        ("musllinux_1_2_aarch64", b"#!/bin/sh", "is for None"),
    ],
)
def test_what_is_in_a_wheel(
    wheels: ModuleType, tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    made = tmp_path / f"x-1-cp310-abi3-{name}.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path in (wheels.EXTENSION, wheels.SHIM, wheels.PROGRAM):
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, data)
    found = wheels.problems(made, name)
    assert len(found) == (3 if problem else 0)
    assert all(problem in line for line in found)


def test_a_wheel_that_lacks_something_is_refused(wheels: ModuleType, tmp_path: Path) -> None:
    name, made = "musllinux_1_2_x86_64", tmp_path / "x.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo(wheels.PROGRAM), elf(62))
        archive.writestr("rrdispatch/_core/_native.c", "")
    missing = [f"{path} is not there" for path in (wheels.EXTENSION, wheels.SHIM)]
    rest = [f"{wheels.PROGRAM} is not executable", "rrdispatch/_core/_native.c is too much"]
    assert wheels.problems(made, name) == [*missing, *rest]


def test_readmes_first_command_is_what_make_wheel_tries(wheels: ModuleType) -> None:
    assert tool("proof").first_command() == ["run", "app:app", "-i", "max"]


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))

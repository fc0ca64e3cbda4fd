"""What ``doctor`` finds on machines that lack something."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch import _core
from rrdispatch.cli.group import run
from rrdispatch.control import doctor
from rrdispatch.control.doctor import FAILS, OK, WORSE, Finding, Machine


def machine(tmp_path: Path, **files: str) -> Machine:
    for path, text in files.items():
        file = tmp_path / "root" / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    home = str(tmp_path / "home")
    return Machine(tmp_path / "root", {"RRDISPATCH_HOME": home})


def named(found: Iterator[Finding], name: str) -> Finding:
    return next(finding for finding in found if finding.name == name)


def test_here_nothing_fails_and_json_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    assert run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    groups = {finding["group"] for finding in told}
    assert groups == {"kernel", "limits", "build", "python", "state"}
    assert all(finding["meaning"] for finding in told if finding["state"] != OK)
    assert run(["doctor"]) == 0
    assert f"{tmp_path}/home" in capsys.readouterr().out
    assert not (tmp_path / "home").exists()  # it only looks


def test_what_fails_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    monkeypatch.setenv("RRDISPATCH_HOME", str(home))
    assert run(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"hint: chmod 0700 {home}" in said
    assert "1 that fail" in said


def test_a_kernel_without_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(_core, "gate", refuse)
    found = list(doctor.kernel(Machine()))
    assert named(iter(found), "pidfd").state == FAILS
    gate = named(iter(found), "socket filter")
    assert (gate.state, gate.value) == (WORSE, "Function not implemented")


def test_small_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = machine(
        tmp_path,
        proc__sys__net__core__somaxconn="128\n",
        proc__sys__net__ipv4__tcp_max_syn_backlog="128\n",
        proc__sys__net__ipv4__tcp_abort_on_overflow="1\n",
    )
    found = {finding.name: finding for finding in doctor.backlog(small)}
    assert {finding.state for finding in found.values()} == {WORSE}
    assert found["somaxconn"].hint == "sysctl -w net.core.somaxconn=4096"
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 128))
    assert next(doctor.descriptors(small)).state == FAILS


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/apps/web\n", "sys__fs__cgroup__apps__pids.max"),
        ("8:pids:/apps/web\n0::/\n", "sys__fs__cgroup__pids__apps__web__pids.max"),
    ],
)
def test_the_tightest_limit_of_processes(tmp_path: Path, groups: str, file: str) -> None:
    files = {"proc__self__cgroup": groups, file: "50\n"}
    where = machine(tmp_path, **files)
    top = tmp_path / "root/sys/fs/cgroup"
    (top / ("pids/apps/web" if "pids" in groups else "apps/web")).mkdir(parents=True, exist_ok=True)
    found = next(doctor.tasks(where))
    assert (found.state, found.value) == (WORSE, "50")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RRDISPATCH_PURE", raising=False)
    monkeypatch.setattr(_core, "NATIVE", False)
    monkeypatch.setattr(_core, "dispatcher_program", lambda: None)
    monkeypatch.setattr(_core, "shim_library", lambda: None)
    found = list(doctor.build(Machine()))
    assert [finding.state for finding in found] == [WORSE] * 3
    assert {finding.hint for finding in found} == {"install a C compiler and reinstall"}


def test_extras_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["cffi>=1", 'nowhere-to-be-found>=2; extra == "watch"', 'click>=8; extra == "asgi"']
    asked.append('other-thing; python_version < "4" and extra == "fast"')
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: asked)
    found = {finding.name: finding for finding in doctor.python(Machine())}
    assert found["extra asgi"].state == OK
    assert found["extra watch"].value == "missing: nowhere-to-be-found"
    assert found["extra watch"].hint.endswith(' -m pip install "rrdispatch[watch]"')
    assert found["extra fast"].state == WORSE


@pytest.mark.parametrize(("mode", "state"), [(0o700, OK), (0o755, WORSE), (0o770, FAILS)])
def test_modes_of_an_apps_folder(tmp_path: Path, mode: int, state: str) -> None:
    where = machine(tmp_path)
    folder = tmp_path / "home" / "web"
    folder.mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    folder.chmod(mode)
    found = list(doctor.state(where))
    assert found[0].state == OK
    assert {finding.state for finding in found if finding.name == str(folder)} <= {state}
    assert any(finding.name == str(folder) for finding in found) == (state != OK)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    assert next(doctor.state(machine(tmp_path))).state == FAILS
    (tmp_path / "home").unlink()
    (tmp_path / "home").symlink_to(tmp_path)
    assert next(doctor.state(machine(tmp_path))).state == FAILS

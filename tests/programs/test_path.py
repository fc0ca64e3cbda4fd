"""Where the package lies must not matter, not even for LD_PRELOAD, which has no quotes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import rrdispatch
from rrdispatch import _core
from rrdispatch.cluster.program import argv, linked, preload
from rrdispatch.errors import TargetError
from tests.harness.servers import START_TIMEOUT, Server, rrdispatch_command
from tests.programs.program import APPS, free_port

pytestmark = pytest.mark.skipif(_core.shim_library() is None, reason="the shim was not built")
MAPS = "print(open('/proc/self/maps').read())"


@pytest.mark.parametrize("before", ["/j.so", "/j.so:/k.so", "/j.so /k.so", " /j.so: "])
def test_what_was_preloaded_before_stays_first(before: str) -> None:
    both = preload({"LD_PRELOAD": before}, "/rr-shim.so")["LD_PRELOAD"]
    assert both == f"{before.strip(' :')}:/rr-shim.so"
    assert preload({}, "/rr-shim.so") == preload({"LD_PRELOAD": ""}, "/rr-shim.so")
    assert preload({}, "/rr-shim.so") == {"LD_PRELOAD": "/rr-shim.so"}


@pytest.mark.parametrize("name", ["a b", "a:b", "a$LIB", "$ORIGIN"])
def test_a_link_is_loaded(tmp_path: Path, name: str) -> None:
    library = _core.shim_library()
    assert library is not None
    assert linked("/plain/rr-shim.so") == "/plain/rr-shim.so"
    there = tmp_path / name / "rr-shim.so"
    there.parent.mkdir()
    shutil.copy(library, there)
    link = linked(str(there))
    try:
        told = subprocess.run(
            [sys.executable, "-S", "-c", MAPS],
            env=preload({}, link),
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(there) in told.stdout
        assert not told.stderr
    finally:
        shutil.rmtree(os.path.dirname(link))


def test_a_temporary_folder_with_a_space_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    link = linked(str(folder / "rr-shim.so"))
    assert " " not in link
    shutil.rmtree(os.path.dirname(link))


def test_a_package_in_a_folder_with_a_space(tmp_path: Path) -> None:
    package = Path(rrdispatch.__file__).parent
    shutil.copytree(package, tmp_path / "a b" / "rrdispatch", ignore=lambda *_: ["__pycache__"])
    folder = tmp_path / "temporary"
    folder.mkdir()
    port = free_port()
    command = rrdispatch_command("run", "-i", "1", "hello.py", "--", str(port))
    env = {"PYTHONPATH": str(tmp_path / "a b"), "TMPDIR": str(folder)}
    server = Server(command, cwd=APPS, env=env)
    try:
        server.output.wait(r": ready after", START_TIMEOUT)
        assert f"listening on 127.0.0.1:{port} (asked for by worker 0)" in server.output.text()
        (link,) = folder.glob("rrdispatch-*/rr-shim.so")
        assert str(link.readlink()).startswith(str(tmp_path / "a b"))
        assert server.stop() == 0
        assert not list(folder.glob("rrdispatch-*"))
    finally:
        server.close()


@pytest.mark.parametrize(
    ("name", "first", "interpreter"),
    [("a.rb", "", "ruby"), ("a", "#!/usr/bin/env -S lua -E", "lua")],
)
def test_a_missing_interpreter_is_told_with_its_script(
    tmp_path: Path, name: str, first: str, interpreter: str
) -> None:
    (tmp_path / name).write_text(f"{first}\n")
    with pytest.raises(TargetError) as caught:
        argv(name, (), None, sys.executable, str(tmp_path), str(tmp_path))
    assert caught.value.message == f"'{interpreter}', which is to run {name}, is no program on PATH"
    assert "--interpreter" in (caught.value.hint or "")

"""``run`` for real, where it must refuse or count; more in tests/acceptance/test_bad_input.py."""

from __future__ import annotations

import os
import signal
import socket
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.harness.ports import kept_port
from tests.harness.servers import APPS, Server, Service, rrdispatch_command

ASGI = "probe:asgi"
# root without its powers: permissions count, as they do for everybody else
POWERLESS = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all") if os.getuid() == 0 else ()


def refused(
    *arguments: str,
    cwd: Path = APPS,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> tuple[int, str]:
    """Exit code and stderr of a run that ends by itself and leaves nothing."""
    server = Server([*prefix, *rrdispatch_command("run", *arguments)], cwd=cwd, env=env)
    try:
        code = server.wait(60.0)
        server.assert_nothing_left()
        return code, server.output.text("stderr")
    finally:
        server.close()


def test_a_folder_one_may_not_write(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code, text = refused(ASGI, "--bind", f"unix:{closed}/app.sock", prefix=POWERLESS)
    assert code == 3, text
    assert "error: cannot listen on" in text
    assert "Permission denied" in text
    assert "hint: " in text


def test_a_certificate_one_may_not_read(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o200)
    code, text = refused(ASGI, "--ssl-keyfile", str(key), prefix=POWERLESS)
    assert code == 2, text
    assert f"error: --ssl-keyfile: {key} may not be read" in text


@pytest.mark.parametrize(("target", "extra"), [("probe:asgi", "asgi"), ("probe:wsgi", "wsgi")])
def test_a_missing_extra_names_what_to_install(target: str, extra: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    code, text = refused(target, "--bind", "127.0.0.1:0", "--python", python)
    assert code == 4, text
    assert len([line for line in text.splitlines() if line.startswith("error: ")]) == 1
    assert f"rrdispatch[{extra}]" in text


def test_many_workers_of_a_broken_app_give_one_message(tmp_path: Path) -> None:
    (tmp_path / "boom.py").write_text("raise RuntimeError('no database')\n")
    code, text = refused("boom:app", "-i", "5", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert code == 4, text
    assert text.count("Traceback (most recent call last)") == 1
    assert len([line for line in text.splitlines() if line.startswith("error: ")]) == 1


def test_a_refused_start_frees_its_address_and_file(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    port = kept_port()
    code, text = refused(
        "probe:none", "--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}", cwd=APPS
    )
    assert code == 4, text
    assert not path.exists()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_second_of_two_addresses_is_named_and_the_first_freed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = refused(ASGI, "--bind", f"unix:{path}", "--bind", f"127.0.0.1:{port}")
    assert code == 3, text
    assert f"127.0.0.1:{port}" in text
    assert f"pid {os.getpid()}" in text
    assert not path.exists()


def test_a_half_file_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "rrdispatch.toml").write_text('target = "probe:asgi"\nbind = ["127.0.0.1:0"\n')
    code, text = refused(cwd=tmp_path)
    assert code == 2
    assert "rrdispatch.toml: line 2" in text


def test_a_wrong_variable_is_named() -> None:
    for name, value in (("WEB_CONCURRENCY", "many"), ("PORT", "http"), ("RRDISPATCH_BAND", "x")):
        code, text = refused(ASGI, env={name: value})
        assert code == 2
        assert f"error: {name}: {value!r}" in text


def test_the_environment_says_how_many_and_where() -> None:
    port = str(kept_port())
    env = {"WEB_CONCURRENCY": "3", "PORT": port}
    with Server(rrdispatch_command("run", ASGI), env=env) as server:
        server.output.wait(r"probe: ready after", 60.0)
        text = server.output.text("stderr")
    assert f"probe: listening on http://127.0.0.1:{port}" in text
    assert "probe: 3 workers: as asked (WEB_CONCURRENCY); " in text


def test_a_settings_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "rrdispatch.toml").write_text(
        f'target = "probe:asgi"\ncwd = "{APPS}"\nbind = "127.0.0.1:0"\ninstances = 2\n'
        'name = "shop"\n[env]\nA = "1"\n'
    )
    server = Server(rrdispatch_command("run"), cwd=tmp_path)
    with server:
        server.output.wait("shop: ready after", 60.0)


def test_interrupted_in_the_middle_of_a_start(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import threading\nprint('here', flush=True)\n"
                                      "threading.Event().wait()\n")  # fmt: skip
    server = Server(
        rrdispatch_command("run", "slow:app", "-b", "127.0.0.1:0", "--drain-timeout", "1"),
        cwd=tmp_path,
    )
    try:
        server.output.wait("here", 60.0)
        server.processes()
        server.send_signal(signal.SIGINT)
        server.wait(60.0)
        server.assert_nothing_left()
    finally:
        server.close()
    assert "Traceback" not in server.output.text()


def test_stdout_is_the_apps_and_stderr_is_ours() -> None:
    with Service(ASGI, "-i", "1") as service:
        service.output.wait("ready after", 30.0)
        service.stop()
        assert "listening" not in service.output.text("stdout")

"""Programs that know nothing of us are clustered all the same."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from rrdispatch import Cluster
from tests.harness import processes
from tests.harness.load import load_beside
from tests.harness.records import Plan
from tests.harness.servers import START_TIMEOUT, Server, rrdispatch_command, wait_until
from tests.programs.program import APPS, PATIENT, Program, free_port

NODE = pytest.mark.skipif(shutil.which("node") is None, reason="needs node: apt install nodejs")


def commands(port: int) -> dict[str, tuple[str, ...]]:
    """One program in the ways that people type."""
    return {
        "script": ("hello.py", "--", str(port)),
        "command": ("--", "python3", "hello.py", str(port)),
        "line": (f"python3 hello.py {port}",),
        "node": ("hello.js", "--", str(port)),
    }


@pytest.mark.parametrize("form", ["script", "command", "line", pytest.param("node", marks=NODE)])
def test_each_connection_goes_to_the_next(form: str) -> None:
    port = free_port()
    options = ("-i", "4", "--name", form, *PATIENT)
    with Program(*commands(port)[form], port=port, options=options) as program:
        tally = program.ask(100)
        split = tally.split()
        assert len(tally.ok) == 100
        assert max(split.values()) - min(split.values()) <= 1, split
        assert program.said(rf"listening on 127.0.0.1:{port} \(asked for by worker") == [
            f"listening on 127.0.0.1:{port} (asked for by worker"
        ]


def test_arguments_arrive_as_they_are() -> None:
    port = free_port()
    words = (str(port), "", "a b", "--save", "")
    with Program("hello.py", "--", *words, port=port, options=("-i", "1")) as program:
        # Through the logger: the primary may say that it is ready first.
        program.output.wait(r"arguments \[", START_TIMEOUT)
        assert program.said(r"arguments (\[.*\])") == [str(list(words))]


def test_the_peer_is_the_client() -> None:
    port = free_port()
    with (
        Program(
            *commands(port)["script"],
            port=port,
            options=(
                "-i",
                "2",
            ),
        ) as _program,
        socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as client,
    ):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with client.makefile("rb") as answer:
            assert b"peer 127.0.0.2" in answer.read()


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_a_stopped_worker_holds_nobody_up(dispatcher: str) -> None:
    port = free_port()
    options = ("-i", "4", "--dispatcher", dispatcher)
    with Program(*commands(port)["script"], port=port, options=options) as program:
        stopped = program.workers()[1]
        os.kill(stopped, signal.SIGSTOP)
        tally = program.ask(100, concurrency=10)
        assert len(tally.ok) == 100
        assert 1 not in tally.split()
        os.kill(stopped, signal.SIGCONT)


def test_a_killed_worker_is_started_again_and_serves() -> None:
    port = free_port()
    with Program(
        *commands(port)["script"],
        port=port,
        options=(
            "-i",
            "2",
        ),
    ) as program:
        victim = program.workers()[0]
        with load_beside(program, Plan(program.address, rate=50.0)) as load:
            load.wait_more(10)
            killed = time.monotonic_ns()
            processes.kill(victim)
            wait_until(lambda: victim not in program.workers().values(), 20.0)
            gone = time.monotonic_ns()
            wait_until(lambda: len(program.workers()) == 2, 20.0)
            load.wait_for(lambda records: len({r.pid for r in records[-20:]}) == 2)
            tally = load.stop()
        # Usually one or none; a client that got no core for a while asks many things at once.
        in_hand = [one for one in tally.records if one.connected <= gone and one.ended >= killed]
        assert all(one in in_hand for one in tally.failed), "what it had in hand"
        assert not {"refused", "timeout"} & set(tally.outcomes())


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_a_killed_dispatcher_is_told_of_every_listener_and_channel(dispatcher: str) -> None:
    port = free_port()
    options = ("-i", "3", "--dispatcher", dispatcher, *PATIENT)
    with Program(*commands(port)["script"], port=port, options=options) as program:
        assert len(program.ask(6).ok) == 6
        victim = next(one.pid for one in program.processes() if _dispatches(one.pid))
        processes.kill(victim)
        program.output.wait("the dispatcher was replaced", 20.0)
        tally = program.ask(60)
        assert len(tally.ok) == 60
        assert max(tally.split().values()) - min(tally.split().values()) <= 1


def _dispatches(pid: int) -> bool:
    words = processes.command(pid)
    return any(word.endswith(("rr-dispatcher", "dispatch/__main__.py")) for word in words)


def test_embedded_in_a_service() -> None:
    port = free_port()
    events: list[dict[str, object]] = []
    with Cluster(
        "hello.py", workers=2, cwd=str(APPS), arguments=[str(port)], on_event=events.append
    ) as cluster:
        assert cluster.addresses == [f"127.0.0.1:{port}"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                assert b"slot" in answer.read()
    assert any(event["event"] == "listening-too" for event in events)


def test_a_reload_fails_nobody(tmp_path: Path) -> None:
    """Also requests that take longer than the reload is polite: a program is not told to stop
    before it has finished.
    """
    port = free_port()
    options = ("-i", "2", "--probation", "0.2")
    with Program(*commands(port)["script"], port=port, options=options) as program:
        old = set(program.workers().values())
        plan = Plan(program.address, rate=50.0, path="/sleep/300")
        with load_beside(program, plan) as load:
            load.wait_more(20)
            program.send_signal(signal.SIGHUP)
            program.output.wait(r": reloaded in", 60.0)
            wait_until(lambda: not any(map(_alive, old)), 30.0, "the old ones are gone")
            load.wait_more(20)
            tally = load.stop()
        assert not tally.failed
        assert not old & set(program.workers().values())


def _alive(pid: int) -> bool:
    return processes.state(pid) not in ("", "Z")


def test_the_end_finishes_what_is_at_work() -> None:
    port = free_port()
    with Program(
        *commands(port)["script"],
        port=port,
        options=(
            "-i",
            "2",
        ),
    ) as program:
        plan = Plan(program.address, count=6, path="/sleep/800")
        with load_beside(program, plan) as load:
            # All come at once: who has an answer is not connected any more, but all were.
            at_work = lambda: _connected(port) >= 6 or bool(load.records)  # noqa: E731
            wait_until(at_work, 30.0, "all six are at work")
            assert program.stop() == 0
            assert len(load.finish().ok) == 6


def _connected(port: int) -> int:
    from rrdispatch.cluster.quiet import connections

    return len(list(connections(port)))


def test_a_port_in_use_is_reported_by_the_program_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = Server(rrdispatch_command("run", "hello.py", "-i", "2", "--", str(port)), cwd=APPS)
        try:
            assert server.wait() == 5
            assert "Address already in use" in server.output.text()
            server.assert_nothing_left()
        finally:
            server.close()


def test_two_apps_do_not_share_a_port() -> None:
    port = free_port()
    with Program(*commands(port)["script"], port=port, options=("-i", "1", "--name", "first")):
        command = rrdispatch_command("run", "hello.py", "-i", "1", "--name", "b", "--", str(port))
        server = Server(command, cwd=APPS)
        try:
            assert server.wait() == 5
            assert "Address already in use" in server.output.text()
        finally:
            server.close()


def test_only_the_ports_that_are_wanted() -> None:
    """What is not taken the program listens on by itself."""
    port = free_port()
    options = ("-i", "1", "--listen", "1", "--ready-timeout", "3")
    server = Server(rrdispatch_command("run", *options, "hello.py", "--", str(port)), cwd=APPS)
    try:
        assert server.wait() == 5
        assert "never asked for a connection" in server.output.text()
        assert "--no-listen" in server.output.text()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing-like-this",), "no app, no file and no program"),
        (("apps.txt",), "no app, no file"),
        (("--interpreter", "nope", "hello.py"), "'nope', which is to run hello.py, is no program"),
        (("'unclosed quote",), "is no command line"),
    ],
)
def test_what_is_no_program(arguments: tuple[str, ...], words: str) -> None:
    server = Server(rrdispatch_command("run", *arguments), cwd=APPS)
    try:
        assert server.wait() == 4
        assert words in server.output.text("stderr")
        assert "hint: " in server.output.text("stderr")
        server.assert_nothing_left()
    finally:
        server.close()


def test_a_static_program_is_told_at_once(tmp_path: Path) -> None:
    source = tmp_path / "static.c"
    source.write_text("int main(void) { return 0; }\n")
    compiler = shutil.which("cc")
    if compiler is None or os.system(f"{compiler} -static -o {tmp_path}/static {source}"):
        pytest.skip("no static binary can be made here")
    server = Server(rrdispatch_command("run", str(tmp_path / "static")))
    try:
        assert server.wait() == 4
        assert "linked statically" in server.output.text("stderr")
    finally:
        server.close()

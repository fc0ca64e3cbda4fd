"""The script as a primary: when it stays, how it ends, what its workers run."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.ports import kept_port
from tests.harness.servers import Server, wait_until
from tests.node.script import WITHIN, Service, who


def script(tmp_path: Path, text: str, *arguments: str, flags: tuple[str, ...] = ()) -> Server:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return Server([sys.executable, *flags, str(path), *arguments], cwd=tmp_path)


def lines(server: Server) -> list[str]:
    return server.output.text("stdout").splitlines()


def test_the_end_of_the_script_is_not_the_end(tmp_path: Path) -> None:
    text = """
        from rrdispatch import cluster
        if cluster.is_primary:
            cluster.on("exit", lambda worker, code, signal: print("exit", code, flush=True))
            cluster.fork()
            print("end of script", flush=True)
        else:
            raise SystemExit(4)
    """
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        assert lines(server) == ["end of script", "exit 4"]


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('of the script')", 1),
        ("cluster.on('online', lambda _: 1 / 0)", 1),
        ("cluster.on('online', lambda _: sys.exit(6))", 6),
        ("cluster.on('online', lambda _: 1 / 0); cluster.run()", 1),
    ],
)
def test_an_end_by_error_or_exit_takes_the_workers_with_it(
    tmp_path: Path, ending: str, code: int
) -> None:
    text = f"""
        import sys
        from rrdispatch import cluster
        if cluster.is_primary:
            cluster.fork()
            {ending}
        else:
            cluster.run()
    """
    with script(tmp_path, text) as server:
        server.processes()
        assert server.wait(WITHIN) == code
        server.assert_nothing_left(WITHIN)


def test_run_returns_and_begins_anew(tmp_path: Path) -> None:
    text = """
        from rrdispatch import cluster
        if cluster.is_primary:
            for _ in range(2):
                worker = cluster.fork()
                cluster.run()
                print("ran", worker.id, worker.process.exit_code, worker.is_dead(), flush=True)
    """.replace(
        "if cluster.is_primary",
        "if cluster.is_worker:\n            raise SystemExit(2)\n        if True",
    )
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        assert lines(server) == ["ran 1 2 True", "ran 2 2 True"]


def test_what_workers_run_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "work.py").write_text(
        "import os, sys\n"
        "from rrdispatch import cluster\n"
        "told = [sys.argv[1:], os.getcwd(), os.environ['COLOUR'], sys.flags.optimize]\n"
        "cluster.worker.send([*told, 'RRDISPATCH_NODE' in os.environ, __name__, sys.path[0]])\n"
        "print('on stdout')\n"
        "print('on stderr', file=sys.stderr)\n"
        "cluster.worker.disconnect()\n"
    )
    text = """
        from rrdispatch import cluster
        cluster.on("message", lambda worker, message: print(message, flush=True))
        cluster.on("setup", lambda settings: print(settings.args, flush=True))
        cluster.setup_primary(exec="other/work.py", args=["a", "b"], exec_argv=["-O"], silent=True)
        cluster.setup_primary(cwd="other", exec="work.py")
        worker = cluster.fork({"COLOUR": "red"})
        cluster.run()
        print(worker.process.stdout.read(), worker.process.stderr.read())
    """
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        *setups, told, out = lines(server)
    other = str(tmp_path / "other")
    assert setups == ["('a', 'b')"] * 3
    assert told == str([["a", "b"], other, "red", 1, False, "__main__", other])
    assert out == r"b'on stdout\n' b'on stderr\n'"


def test_a_module_is_run_again_as_a_module(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "name.py").write_text("NAME = 'shop'\n")
    (package / "__main__.py").write_text(
        "import sys\n"
        "from rrdispatch import cluster\n"
        "from .name import NAME\n"
        "cluster.on('message', lambda worker, told: print(told, flush=True))\n"
        "if cluster.is_primary:\n"
        "    cluster.fork()\n"
        "else:\n"
        "    cluster.worker.send([NAME, sys.argv[1:], sys.warnoptions])\n"
        "    cluster.worker.disconnect()\n"
    )
    command = [sys.executable, "-W", "ignore", "-m", "shop", "x", "y"]
    with Server(command, cwd=tmp_path) as server:
        assert server.wait(WITHIN) == 0
        assert lines(server) == ["['shop', ['x', 'y'], ['ignore']]"]


def test_asyncio(tmp_path: Path) -> None:
    text = """
        import asyncio
        from rrdispatch.aio import cluster

        async def main():
            worker = cluster.fork()

            @worker.on("message")
            async def answer(message):
                await asyncio.sleep(0)
                print("message", message, flush=True)
                worker.send(message + 1)
                if message == 3:
                    await cluster.disconnect()
                    print("disconnected", worker.process.exit_code, flush=True)

            cluster.on("online", lambda worker: worker.send(0))
            await cluster.run()
            print("over", flush=True)

        async def work():
            @cluster.worker.on("message")
            async def echo(message):
                await asyncio.sleep(0)
                cluster.worker.send(message + 1)

            await cluster.run()
            print("worker over", flush=True)

        asyncio.run(main() if cluster.is_primary else work())
    """
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        said = lines(server)
    assert said.index("worker over") < said.index("disconnected 0")
    said.remove("worker over")
    assert said[:2] == ["message 1", "message 3"]
    # Answers may come until the end or not at all: messages stop when it disconnects.
    assert [line for line in said[2:] if "message" not in line] == ["disconnected 0", "over"]


def test_an_async_handler_that_raises_is_raised_by_run(tmp_path: Path) -> None:
    text = """
        import asyncio
        from rrdispatch.aio import cluster

        async def main():
            @cluster.on("online")
            async def online(worker):
                raise ValueError("of a handler")
            cluster.fork()
            try:
                await cluster.run()
            except ValueError as error:
                print(error, flush=True)
                await cluster.disconnect()

        asyncio.run(main() if cluster.is_primary else cluster.run())
    """
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        assert lines(server) == ["of a handler"]


def test_an_app_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(
        "import os\n"
        "from rrdispatch import cluster\n"
        "def serve(listener):\n"
        "    for connection, _ in listener:\n"
        "        with connection:\n"
        "            connection.recv(1000)\n"
        "            body = str(cluster.worker.id).encode()\n"
        "            connection.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + body)\n"
    )
    port = kept_port()
    text = f"""
        from rrdispatch import cluster
        cluster.setup_primary(exec="echo:serve", bind="127.0.0.1:{port}")
        cluster.on("listening", lambda worker, address: print(worker.id, address.port, flush=True))
        cluster.on("exit", lambda worker, code, signal: print("exit", code, flush=True))
        cluster.fork()
        cluster.fork()
        import signal
        signal.signal(signal.SIGTERM, lambda *_: cluster.disconnect())
    """
    with script(tmp_path, text) as server:
        wait_until(lambda: len(lines(server)) == 2, WITHIN)
        assert sorted(lines(server)) == [f"1 {port}", f"2 {port}"]
        both = {"1", "2"}
        wait_until(lambda: {who(f"127.0.0.1:{port}") for _ in range(6)} == both, WITHIN)
        server.send_signal(signal.SIGTERM)
        assert server.wait(WITHIN) == 0
        assert lines(server)[2:] == ["exit 0", "exit 0"]


def test_workers_of_a_killed_primary_finish_what_they_have(tmp_path: Path) -> None:
    port = kept_port()
    with Service(tmp_path, 2, port) as service:
        service.processes()
        with socket.create_connection(("127.0.0.1", port), WITHIN) as client:
            client.sendall(b"GET /")  # it is taken, and at work, when the primary dies
            # Each took what came after it, too.
            wait_until(lambda: {who(service.address) for _ in range(4)} == {"1", "2"}, WITHIN)
            os.kill(service.pid, signal.SIGKILL)
            client.sendall(b"slow HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").readline().startswith(b"HTTP/1.0 200")
        service.popen.wait(WITHIN)
        service.assert_nothing_left(WITHIN)


def test_a_forked_child_of_the_primary_holds_nothing(tmp_path: Path) -> None:
    text = """
        import os, time
        from rrdispatch import cluster
        if cluster.is_primary:
            before = len(os.listdir("/proc/self/fd"))
            worker = cluster.fork()
            child = os.fork()
            if child == 0:
                time.sleep(1000)
            print("child", child, before, flush=True)
        else:
            cluster.run()
    """
    with script(tmp_path, text) as server:
        match = server.output.wait(r"child (\d+) (\d+)", WITHIN)
        child, before = int(match[1]), int(match[2])
        wait_until(lambda: len(os.listdir(f"/proc/{child}/fd")) <= before + 3, WITHIN)
        known = set(server.processes())
        os.kill(server.pid, signal.SIGKILL)
        others = {one for one in known if one.pid not in (child, server.pid)}
        assert not processes.wait_gone(others, WITHIN)
        os.kill(child, signal.SIGKILL)
        server.popen.wait(WITHIN)


def test_a_program_that_is_not_there_is_an_error_of_fork(tmp_path: Path) -> None:
    text = """
        from rrdispatch import StartError, cluster
        cluster.setup_primary(cwd="/nowhere")
        try:
            cluster.fork()
        except StartError as error:
            print(error, cluster.workers, flush=True)
    """
    with script(tmp_path, text) as server:
        assert server.wait(WITHIN) == 0
        assert "could not be started" in server.output.text()
        assert "{}" in server.output.text()


def test_no_cluster_inside_of_another_ones_worker(tmp_path: Path) -> None:
    text = """
        from rrdispatch import cluster
        cluster.fork()
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    environment = {"RRDISPATCH_SOCKET": "@somebody"}
    with Server([sys.executable, str(path)], cwd=tmp_path, env=environment) as server:
        assert server.wait(WITHIN) == 1
        assert "start the script by itself" in server.output.text()

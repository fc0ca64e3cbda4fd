"""Servers that know nothing of it, in workers of a script that may block."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.ports import kept_port
from tests.harness.servers import Server, wait_until
from tests.node.script import WITHIN, who

SERVERS = {
    "asyncio": """
        import asyncio
        async def answer(reader, writer):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % cluster.worker.id)
            writer.close()
        async def serve():
            server = await asyncio.start_server(answer, "127.0.0.1", port)
            await server.serve_forever()
        asyncio.run(serve())
    """,
    "uvicorn": """
        import uvicorn
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"%d" % cluster.worker.id})
        uvicorn.run(app, port=port, log_level="error", lifespan="off")
    """,
    "waitress": """
        import waitress
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"%d" % cluster.worker.id]
        waitress.serve(app, host="127.0.0.1", port=port, _quiet=True)
    """,
}
PRIMARY = """
    import sys
    from rrdispatch import cluster
    port = int(sys.argv[1])
    if cluster.is_primary:
        cluster.on("exit", lambda worker, *how: print("exit", how, flush=True))
        for _ in range(2):
            cluster.fork()
        print("blocks", flush=True)
        open(sys.argv[2]).read()  # no handler runs meanwhile, and the workers serve
        cluster.disconnect()
    else:
"""


@pytest.mark.parametrize("name", SERVERS)
def test_unmodified_servers_of_a_primary_that_blocks(tmp_path: Path, name: str) -> None:
    if name in ("uvicorn", "waitress"):
        pytest.importorskip(name)
    path, fifo = tmp_path / "script.py", tmp_path / "fifo"

    os.mkfifo(fifo)
    body = textwrap.indent(textwrap.dedent(SERVERS[name]), "    ")
    path.write_text(textwrap.dedent(PRIMARY) + body)
    port = kept_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, str(path), str(port), str(fifo)]
    with Server(command, cwd=tmp_path) as server:
        server.output.wait("blocks", WITHIN)
        wait_until(lambda: answers(port) == {"1", "2"}, WITHIN)
        # In turn, as soon as none of them waits for a core so long that it is passed over.
        evenly = {"1": 10, "2": 10}
        wait_until(lambda: Counter(who(address) for _ in range(20)) == evenly, WITHIN)
        dispatcher = next(
            one
            for one in server.processes()
            if "dispatch" in Path("".join(processes.command(one.pid)[:1])).name
        )
        processes.kill(dispatcher.pid)
        processes.wait_gone({dispatcher}, WITHIN)
        wait_until(lambda: {who(address) for _ in range(6)} == {"1", "2"}, WITHIN)
        fifo.write_text("")
        assert server.wait(WITHIN) == 0
        ends = [line for line in server.output.text("stdout").splitlines() if "exit" in line]
        assert ends == ["exit (0, None)"] * 2, server.output.text()


def answers(port: int) -> set[str]:
    try:
        return {who(f"127.0.0.1:{port}") for _ in range(4)}
    except OSError:
        return set()

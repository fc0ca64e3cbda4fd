"""Primary and logger killed one after the other: the heir has the journals, and starts a logger."""

from __future__ import annotations

from pathlib import Path

from tests.harness import processes
from tests.harness.followed import Followed
from tests.harness.servers import wait_until
from tests.logs.kit import APPS, ask, content, in_pipe, numbers_of


def test_an_heir_and_its_logger_go_on_at_the_same_byte(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    options = ("-i", "1", "--log", str(log))
    with Followed("talker:serve", *options, cwd=APPS, home=tmp_path / "home") as service:
        _, pid, _ = ask(service, "lines 1000 100")
        ask(service, f"raw {f'{pid} 1000 '.encode().hex()}")  # half a line: it is in no file
        wait_until(lambda: in_pipe(pid) == 0, 60.0)
        logger = service.stats()["logger_pid"]
        service.replace_primary()
        processes.kill(logger)
        wait_until(lambda: service.stats()["logger_pid"] not in (0, -1, logger), 60.0)
        ask(service, "raw " + b"xxx\n".hex())
        wait_until(lambda: content(log).count(b"\n") >= 1001, 60.0)
        found = [line.replace(service.name.encode(), b"app") for line in content(log).splitlines()]
        assert numbers_of(found) == {pid: list(range(1001))}

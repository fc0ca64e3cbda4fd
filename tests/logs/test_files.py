"""What workers print is in the files: all of it, once, whole."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.kit import skip
from tests.faults.test_output import small_disk
from tests.harness import processes
from tests.harness.servers import ROOT, Service, wait_until
from tests.logs.kit import APPS, ask, content, files, in_pipe, logger_of, numbers

WEB = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/dies":
        os._exit(7)
    if scope["type"] != "http" or scope["path"] == "/fails":
        1 / 0
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b""})
"""


def get(address: str, path: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", path, headers={"Connection": "close"})
    connection.getresponse().read()


def talker(log: Path, *options: str, workers: int = 1) -> Service:
    return Service("talker:serve", "-i", str(workers), "--log", str(log), *options, cwd=APPS)


def test_out_and_err_are_in_one_file_with_time_worker_and_stream(tmp_path: Path) -> None:
    log = tmp_path / "new folder" / "app.log"
    with talker(log, "--name", "web") as service:
        ask(service, "both x")
        wait_until(lambda: content(log).count(b"\n") == 2, 60.0)
        lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
        assert [rest for _, rest in lines] == [
            "web.0 out | to stdout x",
            "web.0 err | to stderr x",
        ]
        assert all(stamp.endswith("Z") for stamp, _ in lines)
        assert log.stat().st_mode & 0o777 == 0o640
    assert "to std" not in service.output.text()


def test_out_and_err_may_go_apart_and_each_slot_may_have_its_own(tmp_path: Path) -> None:
    options = ("-o", str(tmp_path / "out.log"), "-e", str(tmp_path / "err.log"))
    options += ("--stall-timeout", "60")  # each has its turn, however busy the machine is
    command = ("talker:serve", "-i", "2", *options, "--no-merge-logs", "--no-log-time")
    with Service(*command, cwd=APPS) as service:
        for _ in range(2):
            ask(service, "both y")
        wait_until(lambda: sum(p.read_text().count("\n") for p in tmp_path.iterdir()) == 4, 60.0)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "out-0.log": "talker.0 out | to stdout y\n",
        "out-1.log": "talker.1 out | to stdout y\n",
        "err-0.log": "talker.0 err | to stderr y\n",
        "err-1.log": "talker.1 err | to stderr y\n",
    }


def test_only_stderr_in_a_file_and_json_on_stdout(tmp_path: Path) -> None:
    log = tmp_path / "err.log"
    options = ("-e", str(log), "--log-type", "json", "--time")
    with Service("talker:serve", "-i", "1", *options, cwd=APPS) as service:
        ask(service, "both z")
        service.output.wait('"to stdout z"', 60.0)
        wait_until(lambda: b"\n" in content(log), 60.0)
        told = json.loads(log.read_text())
        assert told.pop("timestamp")
        assert told == {"app_name": "talker", "slot": 0, "type": "err", "message": "to stderr z"}


def test_every_line_is_json_with_the_keys_of_the_page(tmp_path: Path) -> None:
    """Access log, tracebacks, the end of a worker, and what the primary says."""
    (tmp_path / "web.py").write_text(WEB)
    log = tmp_path / "web.log"
    options = ("-i", "1", "--log-type", "json", "--log", str(log))
    with Service("web:app", *options, cwd=tmp_path) as service:
        for path in ("/fine", "/fails", "/dies"):
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(service.address, path)
        wait_until(lambda: b"ended: exit code 7" in content(log), 60.0)
        service.output.wait("exit code 7", 60.0)
        service.stop()
        events = [json.loads(line) for line in service.output.text("stderr").splitlines()]
        assert service.output.text("stdout") == ""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    page = (ROOT / "docs" / "logs.md").read_text()
    for told in lines + events:
        assert told.keys() >= {"app_name", "slot", "type", "message"}
        assert all(f"`{key}`" in page for key in told)
    assert {told["type"] for told in lines} == {"out", "err"}
    assert {told["type"] for told in events} == {"event"}
    assert {"listening", "ready", "stopping"} <= {told["event"] for told in events}
    said = "\n".join(told["message"] for told in lines)
    assert all(word in said for word in ('"GET /fine HTTP/1.1" 200', "ZeroDivisionError: "))
    assert all("timestamp" in told for told in lines)


def test_a_very_long_line_is_written_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with talker(log, "--no-log-time") as service:
        for _ in range(10):
            ask(service, f"raw {('é' * 10_000).encode().hex()}")
        ask(service, "raw " + b"end\n".hex())
        wait_until(lambda: b"end\n" in content(log), 60.0)
    lines = log.read_text().splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("talker.0 out | é")
    assert all(line.startswith("talker.0 out + ") for line in lines[1:])
    assert "".join(line[len("talker.0 out | ") :] for line in lines) == "é" * 100_000 + "end"


def test_20000_lines_and_exit(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with talker(log) as service:
        _, pid, _ = ask(service, "leave 20000 100")
        wait_until(lambda: b"ended: exit code 7" in content(log), 60.0)
        wait_until(lambda: content(log).count(b"\n") > 20_000, 60.0)
        assert numbers(log)[pid] == list(range(20_000))


def test_20000_lines_and_the_end_of_the_service(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with talker(log) as service:
        _, pid, _ = ask(service, "lines 20000 100")
        service.stop()
    assert numbers(log)[pid] == list(range(20_000))


def test_a_traceback_at_import_is_in_the_file(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(TimeoutError):
        Service("broken:serve", "-i", "1", "--log", str(log), cwd=tmp_path)
    wait_until(lambda: "broken.0 err | ModuleNotFoundError: No module" in log.read_text(), 60.0)


def test_how_a_worker_ended_is_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with talker(log) as service:
        ask(service, "leave 1 100")
        wait_until(lambda: b"ended: exit code 7" in content(log), 60.0)


def test_rotation_under_20_mb_of_4_workers_while_loggers_are_killed(tmp_path: Path) -> None:
    """Every line is there, once and whole, and no file is longer than it may be."""
    log = tmp_path / "app.log"
    done = threading.Event()
    with talker(log, "--log-size", "1M", "--log-keep", "100", workers=4) as service:

        def kill() -> None:
            while not killed or (len(killed) < 25 and not done.wait(0.15)):
                killed.append(len(service.output.lines))
                processes.kill(logger_of(service), signal.SIGKILL)
                service.output.wait("logger was replaced", 60.0, after=killed[-1])

        killed: list[int] = []
        killer = threading.Thread(target=kill)
        killer.start()
        expected: dict[int, int] = {}
        with ThreadPoolExecutor(4) as pool:
            for _, pid, printed in pool.map(lambda _: ask(service, "lines 5000 100"), range(44)):
                expected[pid] = max(printed, expected.get(pid, 0))
        done.set()
        killer.join()
        assert sum(expected.values()) == 220_000
        wait_until(lambda: content(log).count(b"\n") >= 220_000, 60.0)
        print(f"{len(killed)} loggers were killed", len(files(log)), "files")
        assert killed
    found = numbers(log)
    for pid, count in expected.items():
        assert found[pid] == list(range(count))
    assert len(files(log)) > 20
    assert all(each.stat().st_size <= 1 << 20 for each in files(log))


def test_a_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    """As logrotate's ``postrotate kill -USR1`` has it; what is printed meanwhile is all there."""
    log, moved = tmp_path / "app.log", tmp_path / "moved"
    with talker(log, "--log-size", "0") as service:
        busy = threading.Thread(target=lambda: ask(service, "lines 20000 100"))
        busy.start()
        for number in range(1, 21):
            wait_until(lambda: log.stat().st_size > 0 or not busy.is_alive(), 60.0)
            if log.stat().st_size == 0:
                break
            log.rename(f"{log}.{21 - number}")
            service.send_signal(signal.SIGUSR1)
            wait_until(log.exists, 60.0)
        busy.join()
        wait_until(lambda: content(log).count(b"\n") >= 20_000, 60.0)
        ((_, found),) = numbers(log).items()
        assert found == list(range(20_000))
        ask(service, "both before")
        wait_until(lambda: b"stderr before" in content(log), 60.0)
        log.rename(moved)
        service.send_signal(signal.SIGUSR1)
        wait_until(log.exists, 60.0)
        ask(service, "both after")
        wait_until(lambda: b"stderr after" in content(log), 60.0)
        assert b"after" not in moved.read_bytes()
        log.unlink()  # and without being told

        def again() -> bool:
            ask(service, "both again")
            return log.exists() and b"again" in content(log)

        wait_until(again, 60.0)


def test_a_full_disk_is_told_and_what_follows_is_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        log, ballast = tmp_path / "app.log", tmp_path / "ballast"
        ballast.write_bytes(bytes(100_000))
        with talker(log, "--no-log-time") as service:
            ask(service, "lines 5000 100")
            service.output.wait("app.log is not written: No space left", 60.0)
            _, pid, _ = ask(service, "both served")
            wait_until(lambda: in_pipe(pid) == 0, 60.0)  # else it may fill the disk once more
            ballast.unlink()

            def told() -> bool:
                ask(service, "both room")
                return b"lines dropped: No space left on device" in content(log)

            wait_until(told, 60.0)
            service.output.wait(r"app.log is written again; \d+ lines were dropped", 60.0)
        lines = content(log).splitlines()
        assert all(line.startswith((b"talker.0 ", b"rrdispatch: ")) for line in lines)
        (note,) = [line for line in lines if line.startswith(b"rrdispatch")]
        numbered = [line for line in lines if line.endswith(b"xxx")]
        assert all(len(line) == len(b"talker.0 out | ") + 99 for line in numbered)
        assert int(note.split()[1]) >= 5000 - len(numbered)


@pytest.mark.parametrize("path", ["/nowhere/may/this/be/app.log", "{}"])
def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, path: str) -> None:
    if os.geteuid() == 0 and path != "{}":
        path = "/proc/nowhere/app.log"
    with pytest.raises(TimeoutError, match="cannot be written"):
        talker(Path(path.format(tmp_path)))


def test_dev_null_is_a_log(tmp_path: Path) -> None:
    with Service("talker:serve", "-i", "1", "-o", "/dev/null", cwd=APPS) as service:
        ask(service, "both x")
        service.output.wait("to stderr x", 60.0)
        assert "to stdout" not in service.output.text()


def test_a_loud_worker_slows_neither_the_others_nor_control(tmp_path: Path) -> None:
    """50 MB as fast as it can: memory of the logger stays what it was."""
    if not Path("/proc/self/status").exists():
        skip("no /proc")
    log = tmp_path / "app.log"
    with talker(log, "--log-size", "1M", "--log-keep", "3", workers=2) as service:
        ask(service, "lines 1 100")
        ask(service, "lines 1 100")
        pid = logger_of(service)
        enough = threading.Event()

        def print_much() -> None:
            for times in range(1, 51):
                ask(service, "lines 100000 100")
                if times >= 5 and enough.is_set():
                    break

        loud = threading.Thread(target=print_much)
        loud.start()
        asked = 0
        while loud.is_alive():
            ask(service, "both quiet")
            asked += 1
            if asked > 10:
                enough.set()  # whoever has no core meanwhile asks later, and it prints on
        loud.join()
        assert asked > 10
        assert int(peak(pid)) < 40_000


def peak(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))

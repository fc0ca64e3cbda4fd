"""Log files that are none, and text that is none: the logger goes on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from rrdispatch.cluster.logfiles import LogFile, open_log
from rrdispatch.cluster.logger import Outputs
from rrdispatch.cluster.logplan import Plan
from rrdispatch.cluster.logsink import Sink

LINE = b"x" * 4095 + b"\n"
MANY = 600  # lines: more than a pipe and the memory for one slow reader hold


def nobody(_told: dict[str, object]) -> None:
    """Who does not listen."""


def outputs(path: Path, kind: str = "text") -> Outputs:
    made = Outputs(1, 2, nobody)
    made.plan = Plan(kind=kind, files={"out": str(path), "err": str(path)})
    return made


def test_dropped_lines_are_told_in_json_where_the_lines_are_json(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = outputs(log, "json")
    file, sink = made.of("out", 0), made.streams["err"]
    file.dropped = sink.dropped = 3
    assert isinstance(file, LogFile)
    file.append(b"{}\n")
    sink.put(b"{}\n")
    for lines, keys in ((log.read_bytes(), {"timestamp"}), (bytes(sink.waiting), set())):
        told, second = map(json.loads, lines.splitlines())
        assert told["message"].startswith("rrdispatch: 3 lines dropped")
        assert told.keys() == {"app_name", "slot", "type", "message"} | keys
        assert second == {}
    os.close(file.fd)


def test_a_fifo_that_nobody_reads_makes_nobody_wait(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sink = outputs(fifo).of("out", 0)
    assert isinstance(sink, Sink)
    for _ in range(MANY):
        sink.put(LINE)
        sink.write()
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        assert reader.read(len(LINE)) == LINE
    sink.close()


def test_a_file_that_became_a_fifo_loses_lines_but_no_time(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = open_log(str(fifo))
    assert not os.get_blocking(fd)
    os.close(fd)
    told: list[dict[str, object]] = []
    file = LogFile(str(fifo), 0, 1, told.append)
    for _ in range(MANY):
        file.append(LINE)
    assert stat.S_ISFIFO(os.fstat(file.fd).st_mode)
    assert file.dropped > 0
    assert [one["output"] for one in told] == [str(fifo)]
    os.close(file.fd)


def test_what_is_said_may_be_no_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outputs(log).say(0, "half a pair: \ud800")
    assert log.read_text().endswith("half a pair: \\ud800\n")

"""--watch: a changed file is a reload."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from watchfiles import Change

from rrdispatch.cluster import watch
from rrdispatch.cluster.watching import PROGRAM
from rrdispatch.errors import MissingExtraError
from tests.cluster.service import LIMIT, Event, app, running, version
from tests.harness.servers import ROOT, rrdispatch_command, wait_until


def test_a_changed_file_is_a_reload_and_a_broken_one_is_told(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="1", watch=True) as service:
            await touched_until(service.until("reloaded"), tmp_path / "app.py", version(2))
            assert await service.versions(2) == {"2"}
            await touched_until(service.until("reload-failed"), tmp_path / "app.py", "1 / 0\n")
            assert await service.versions(2) == {"2"}

    asyncio.run(main())


def test_a_change_before_anybody_watched_is_not_missed(tmp_path: Path) -> None:
    """A watcher takes a while to begin, and the service may be ready before it."""
    began = time.time() - 1
    (tmp_path / "app.py").write_text("")
    told = watch.Told("python", [str(tmp_path)], str(tmp_path), since=began)
    command = [sys.executable, str(PROGRAM), json.dumps(dataclasses.asdict(told))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert [watcher.stdout.readline() for _ in range(2)] == [
            "[]\n",
            json.dumps([str(tmp_path / "app.py")]) + "\n",
        ]
        watcher.kill()


def test_what_was_there_before_is_no_change(tmp_path: Path) -> None:
    told = watch.Told("python", [str(tmp_path)], str(tmp_path))
    counts = watch.chosen(told)
    for name in ("app.py", "notes.txt", ".venv/x.py", "shop/__pycache__/y.py", "shop/main.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {os.path.relpath(path, tmp_path) for path in watch.missed(told, counts)}
    assert found == {"app.py", "shop/main.py"}
    later = dataclasses.replace(told, since=time.time() + 60)
    assert watch.missed(later, counts) == []


APP_THAT_PRINTS = """
def serve(listener):
    print("serving")
    while True:
        listener.accept()[0].close()
"""


async def touched_until(event: object, path: Path, text: str) -> None:
    """Nobody says when a watcher has begun to watch: write until it has seen it."""
    task, pause = asyncio.ensure_future(event), 2.0  # type: ignore[call-overload]
    while not task.done():
        path.write_text(text)  # noqa: ASYNC240
        await asyncio.wait([task], timeout=pause)
        pause *= 1.5  # a change during a reload begins another one: each is to have its time
    await task


def test_what_the_service_itself_writes_is_no_change(tmp_path: Path) -> None:
    """Its log lies in the folder that is watched, and every reload writes to it."""
    app(tmp_path, APP_THAT_PRINTS)
    log = tmp_path / "output.txt"
    command = rrdispatch_command(
        "run", "app:serve", "-i", "1", "--bind", "127.0.0.1:0", "--watch", "--watch-path", "."
    )
    with log.open("wb") as out:
        popen = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "ready after" in log.read_text(), LIMIT)

        def seen() -> bool:
            (tmp_path / "data.json").write_text(str(time.monotonic()))
            return "data.json has changed" in log.read_text()

        wait_until(seen, LIMIT, "other files of any kind count")
        wait_until(lambda: "reloaded in" in log.read_text(), LIMIT)
        (tmp_path / "app.log").write_text("a line")
        (tmp_path / "app.log.1").write_text("a line")
        # The first of a burst is named: this one, also if the last writes above are in the same.

        def named() -> bool:
            (tmp_path / "another.json").write_text(str(time.monotonic()))
            return "another.json has changed" in log.read_text()

        wait_until(named, LIMIT)  # a burst that is read together with one before it is not named
        changed = set(re.findall(r"reload: .*/(\S+) has changed", log.read_text()))
        assert changed <= {"data.json", "another.json"}
    finally:
        popen.terminate()
        assert popen.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("a.py", True), ("a.html", True), ("catalog", True), ("blog.md", True), ("a.log.py", True),
        ("a.log", False), ("a.log.3", False), ("a.log.3.gz", False), ("app.pid", False),
        ("app.sock", False), ("db.sqlite3-wal", False), ("a.pyc", False),
    ],
)  # fmt: skip
def test_which_files_count(name: str, counts: bool) -> None:
    told = watch.Told("all", ["/folder"])
    assert watch.chosen(told)(Change.modified, f"/folder/{name}") == counts


@pytest.mark.parametrize(
    ("pattern", "path", "counts"),
    [
        ("media", "/app/media/a.html", False), ("media/", "/app/deep/media/a.html", False),
        ("./media", "/app/media/a.html", False), ("/app/media", "/app/media/x/a.html", False),
        ("media", "/app/mediator.html", True), ("*.tmp2", "/app/x/a.tmp2", False),
        ("static/*.css", "/app/static/a.css", False), ("static/*.css", "/app/a.css", True),
        ("a.html", "/app/b/a.html", False), ("app", "/app/a.html", True),
        ("data", "/elsewhere/data/a.html", False), ("elsewhere", "/elsewhere/a.html", True),
    ],
)  # fmt: skip
def test_what_is_ignored(pattern: str, path: str, counts: bool) -> None:
    told = watch.Told("all", ["/app", "/elsewhere"], cwd="/app", ignored=[pattern])
    assert watch.chosen(told)(Change.modified, path) == counts


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/app/out.txt", False), ("/app/out.txt.3", False), ("/app/out-12.txt", False),
        ("/app/out-12.txt.3", False), ("/app/without.txt", True), ("/app/out.txt.new", True),
    ],
)  # fmt: skip
def test_the_apps_own_logs_do_not_count_whatever_their_name(path: str, counts: bool) -> None:
    told = watch.Told("all", ["/app"], cwd="/app", written=["/app/out.txt"])
    assert watch.chosen(told)(Change.modified, path) == counts


def test_without_watchfiles_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def main() -> None:
        with pytest.raises(MissingExtraError, match="watchfiles") as missing:
            async with running("app:serve", tmp_path, watch=True) as service:
                await service.task
        assert "rrdispatch[watch]" in (missing.value.hint or "")

    asyncio.run(main())


NOISY = """
import sys
def serve(listener):
    print("serving", flush=True)
    for connection, _ in listener:
        print("asked", file=sys.stderr, flush=True)
        connection.sendall(b"%d 1" % VERSION)
        connection.close()
VERSION = 1
"""


def names(events: list[Event], file: str) -> bool:
    return any(file in str(event.get("paths")) for event in events)


def test_log_files_in_the_watched_folder_and_ignored_ones_make_it_not_loop(tmp_path: Path) -> None:
    app(tmp_path, NOISY)
    (tmp_path / "media").mkdir()

    async def main() -> None:
        async with running(
            "app:serve", tmp_path, instances="1", watch=True, watch_paths=(".",), log_size=4096,
            log_file=str(tmp_path / "out.txt"), merge_logs=False, ignore_watch=("media",),
        ) as service:  # fmt: skip
            for number in range(2):
                before, count = service.mark(), 0
                page = f"page{number}.html"
                told = partial(names, service.events, page)
                seen = asyncio.ensure_future(service.settled(told))
                while not seen.done():  # nobody says when a watcher has begun to watch
                    count += 1
                    (tmp_path / "media" / "upload").write_text(str(count))
                    (tmp_path / page).write_text(str(count))
                    for _ in range(50):
                        await service.ask()  # it logs: enough for rotation
                    await asyncio.wait([seen], timeout=2.0)
                await seen
                await service.until("reloaded", after=before)
            changed = {
                os.path.basename(path)
                for event in service.events
                if event["event"] == "files-changed"
                for path in event["paths"]
            }
            assert changed == {"page0.html", "page1.html"}

    asyncio.run(main())
    assert len(list(tmp_path.glob("out-0.txt*"))) > 1, "it was rotated, too"

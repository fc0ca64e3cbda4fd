"""Reloads of real workers, good and bad, always under load."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from rrdispatch.cluster import memory
from rrdispatch.errors import ConfigError, ReloadError
from tests.cluster.service import LIMIT, PLAIN, app, kill, loaded, running, version

BAD = {
    "raises at import": "print('on my way', flush=True)\nraise ValueError('no luck')\n",
    "exits at boot": "import os\nprint('last words', flush=True)\nos._exit(9)\n",
    "never ready": "import threading\ndef serve(listener):\n    threading.Event().wait()\n",
    "exits after its 10th": PLAIN.replace("while True:", "for _ in range(10):")
    + "    print('that was ten', flush=True)\n    raise SystemExit(5)\n",
}


def test_a_reload_brings_new_code_to_everybody_and_fails_nobody(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="3") as service:
            async with loaded(service) as errors:
                app(tmp_path, version(2))
                done = await service.supervisor.reload()
                assert done.generation == 2
                assert await service.versions() == {"2"}
            assert errors == []
            await service.settled(
                lambda: service.states() == {slot: [(2, "ready")] for slot in range(3)}
            )

    asyncio.run(main())


@pytest.mark.parametrize("options", [{"park": False}, {"batch": 2}], ids=["no park", "batch"])
def test_other_ways_to_reload_fail_nobody(tmp_path: Path, options: dict[str, object]) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="4") as service:
            async with loaded(service) as errors:
                app(tmp_path, version(2))
                await service.supervisor.reload(**options)
                assert await service.versions() == {"2"}
            assert errors == []

    asyncio.run(main())


def test_stop_first_never_runs_two_of_a_slot(tmp_path: Path) -> None:
    text = """
import os
lock = os.open(f"lock{os.environ['RRDISPATCH_SLOT']}", os.O_CREAT | os.O_RDWR)
os.lockf(lock, os.F_TLOCK, 0)
"""
    app(tmp_path, text + PLAIN)

    async def main() -> None:
        async with running("app:serve", tmp_path) as service, loaded(service) as errors:
            await service.supervisor.reload(stop_first=True)
        assert errors == []

    asyncio.run(main())


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_code_is_rolled_back_and_nobody_notices(tmp_path: Path, text: str) -> None:
    app(tmp_path)
    silent = "threading.Event" in text
    answers = "range(10)" in text

    async def main() -> None:
        settings = {"wait_ready": silent}
        if silent:
            ready = PLAIN.replace("    while True:", "    rrdispatch.ready()\n    while True:")
            app(tmp_path, "import rrdispatch\n" + ready)
        async with running("app:serve", tmp_path, instances="3", **settings) as service:
            old = service.pids()
            if silent:  # only those that never are: on a busy machine the others take their time
                view = service.supervisor.view
                view.rules = dataclasses.replace(view.rules, ready_timeout=3.0)
            async with loaded(service) as errors:
                app(tmp_path, text)
                with pytest.raises(ReloadError) as failed:
                    await service.supervisor.reload(probation=10.0)
                assert await service.versions() == {"1"}
            assert errors == []
            assert service.pids() == old
            stats = service.supervisor.stats()
            assert (stats["generation"], stats["degraded"]) == (1, False)
            said = f"{failed.value.message} {failed.value.output}"
            for words in ("on my way", "no luck", "last words", "that was ten"):
                assert (words in text) == (words in said)
            assert ("not ready within" in said) == silent
            assert ("before it was ready" in said) != (answers or silent)

    asyncio.run(main())


def test_a_respawn_after_a_rollback_is_shown_as_degraded(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path) as service:
            app(tmp_path, "import os; os._exit(9)")
            with pytest.raises(ReloadError):
                await service.supervisor.reload()
            assert not service.supervisor.stats()["degraded"]
            app(tmp_path, version(2))
            mark = service.mark()
            kill(service.pids()[1])
            await service.until("worker-ready", mark, slot=1, generation=1)
            assert service.supervisor.stats()["degraded"]
            await service.supervisor.reload()
            assert not service.supervisor.stats()["degraded"]

    asyncio.run(main())


def test_a_release_by_symlink_survives_its_rollback(tmp_path: Path) -> None:
    """The respawn runs the old release, because the folder was resolved per generation."""
    for number, text in ((1, version(1)), (2, "import os; os._exit(9)"), (3, version(3))):
        (tmp_path / str(number)).mkdir()
        app(tmp_path / str(number), text)
    current = tmp_path / "current"

    def deploy(number: int) -> None:
        fresh = tmp_path / "fresh"
        fresh.symlink_to(str(number))
        fresh.rename(current)

    deploy(1)

    async def main() -> None:
        async with running("app:serve", current) as service:
            deploy(2)
            with pytest.raises(ReloadError):
                await service.supervisor.reload()
            mark = service.mark()
            kill(service.pids()[1])
            await service.until("worker-ready", mark, slot=1)
            assert await service.versions() == {"1"}
            deploy(3)
            await service.supervisor.reload()
            assert await service.versions() == {"3"}

    asyncio.run(main())


def test_a_reload_during_a_reload(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="3") as service:
            async with loaded(service) as errors:
                app(tmp_path, version(2))
                first = service.supervisor.reload(probation=10.0)
                await service.until("worker-ready", slot=1, generation=2)
                app(tmp_path, version(3))
                second = service.supervisor.reload()
                with pytest.raises(ReloadError, match="another reload.*\nhint: nothing is to be"):
                    await first
                assert (await second).generation == 3
                assert await service.versions() == {"3"}
            assert errors == []

    asyncio.run(main())


def test_a_stop_during_a_reload_is_acted_on_at_once(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="3") as service:
            done = service.supervisor.reload(probation=600.0)
            await service.until("worker-ready", slot=1, generation=2)
            service.supervisor.stop()
            with pytest.raises(ReloadError, match="given up: .* stopping\nhint: nothing is to be"):
                await done
            assert await asyncio.wait_for(service.task, LIMIT) == 0

    asyncio.run(main())


def test_scaling_during_a_reload_is_acted_on_at_once(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="3") as service:
            async with loaded(service) as errors:
                app(tmp_path, version(2))
                done = service.supervisor.reload(probation=0.5)
                await service.until("worker-ready", slot=0, generation=2)
                service.supervisor.scale(4)
                await done
                assert sorted(service.pids()) == [0, 1, 2, 3]
                assert await service.versions() == {"2"}
            assert errors == []

    asyncio.run(main())


def test_options_of_a_reload_are_checked(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="1") as service:
            for wrong in ({"batch": "x"}, {"probation": -1}, {"parking": True}, {"park": 1}):
                with pytest.raises(ConfigError):
                    service.supervisor.reload(**wrong)

    asyncio.run(main())


def test_parking_is_refused_where_the_memory_would_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app(tmp_path)
    tight: Callable[[], memory.Memory] = lambda: memory.Memory(100 << 20, 99 << 20)  # noqa: E731
    monkeypatch.setattr(memory, "available", tight)

    async def main() -> None:
        async with running("app:serve", tmp_path) as service:
            done = await service.supervisor.reload()
            assert "not parking" in done.notes[0]
            assert not [event for event in service.events if event["event"] == "parked"]

    asyncio.run(main())


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_memory_limit_is_read_of_both_kinds_of_cgroup(tmp_path: Path) -> None:
    v2 = tree(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/app\n",
            "sys/fs/cgroup/app/memory.max": "1000000\n",
            "sys/fs/cgroup/app/memory.current": "700000\n",
            "sys/fs/cgroup/app/memory.stat": "anon 5\ninactive_file 200000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )
    assert memory.available(v2) == memory.Memory(1000000, 500000)
    v1 = tree(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "4:memory:/app\n",
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "1000000\n",
            "sys/fs/cgroup/memory/app/memory.usage_in_bytes": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "100000\n",
        },
    )
    assert memory.available(v1) == memory.Memory(1000000, 100000)
    assert memory.available(tree(tmp_path / "none", {"proc/self/cgroup": "0::/\n"})) is None

"""--pin: a core of its own for each worker."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from rrdispatch.cluster import pin
from tests.cluster.service import app, kill, running


def machine(root: Path, *cores: tuple[int, ...]) -> Path:
    """Of physical cores, each with the numbers of its hardware threads."""
    for siblings in cores:
        for number in siblings:
            folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(",".join(map(str, siblings)) + "\n")
    return root


@pytest.mark.parametrize(
    ("cores", "usable", "turn"),
    [
        (((0, 4), (1, 5), (2, 6), (3, 7)), range(8), [0, 1, 2, 3, 4, 5, 6, 7]),
        (((0, 1), (2, 3)), range(4), [0, 2, 1, 3]),
        (((0, 1), (2, 3)), (1, 2, 3), [1, 2, 3]),  # its first thread is not ours
        (((0, 1, 2, 3),), range(4), [0, 1, 2, 3]),
        (((0,), (1,)), (1,), [1]),
        ((), (3, 5), [3, 5]),  # nobody says
    ],
)
def test_physical_cores_before_their_siblings(
    tmp_path: Path, cores: tuple[tuple[int, ...], ...], usable: range, turn: list[int]
) -> None:
    assert pin.cores_in_turn(set(usable), machine(tmp_path, *cores)) == turn


def test_a_span_of_siblings_is_read(tmp_path: Path) -> None:
    root = machine(tmp_path, (0, 1), (2, 3))
    for number, text in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        path = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        path.write_text(text)
    assert pin.cores_in_turn(range(4), root) == [0, 2, 1, 3]


def test_it_is_said_when_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3})
    assert pin.wraps(2) == ""
    assert pin.wraps(3) == "3 workers are pinned to 2 cores: up to 2 share one"
    assert [pin.core_of(slot) for slot in range(3)].count(2) == 2


def test_workers_stay_where_they_are_put_also_after_a_respawn(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    count = len(mine) + 1

    async def main() -> None:
        async with running("app:serve", app(tmp_path), instances=str(count), pin=True) as service:
            await service.until("warning", message=pin.wraps(count))

            def cores() -> dict[int, set[int]]:
                return {slot: os.sched_getaffinity(pid) for slot, pid in service.pids().items()}

            await service.settled(lambda: len(service.pids()) == count)
            found = cores()
            assert found == {slot: {pin.core_of(slot)} for slot in range(count)}
            assert set().union(*found.values()) == mine, "each core is used before one is shared"
            rows = service.supervisor.stats()["workers"]
            assert {row["slot"]: set(row["cores"]) for row in rows} == found
            mark = service.mark()
            kill(service.pids()[0])
            await service.until("worker-ready", after=mark, slot=0)
            assert cores() == found
            assert os.sched_getaffinity(0) == mine, "the primary stays free"

    asyncio.run(main())

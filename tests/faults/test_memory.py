"""Out of memory: whose end it was is said, and the others serve on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from rrdispatch.cluster.oom import KILLED, VICTIM, OomKills
from tests.cluster.service import Event, kill, running
from tests.faults.kit import APPS, ask, cgroup
from tests.harness.servers import Service

MEGABYTE = 1 << 20
PIDS = range(1, 8)
FORMS = {
    "v2": ("0::/app.slice/ours\n", "sys/fs/cgroup", "memory.events", "low 0\noom 3\noom_kill {}\n"),
    "v2 beside v1": ("1:cpu:/\n0::/app.slice/ours\n", "sys/fs/cgroup/unified", "memory.events",
                     "oom_kill {}\noom_group_kill 0\n"),
    "v1": ("4:memory:/app.slice/ours\n0::/\n", "sys/fs/cgroup/memory", "memory.oom_control",
           "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
}  # fmt: skip


class Machine:
    """What a kernel shows, in files of the test's own."""

    def __init__(self, root: Path, form: str) -> None:
        self.root = root
        cgroups, top, name, self.text = FORMS[form]
        for pid in PIDS:
            (root / f"proc/{pid}").mkdir(parents=True)
            (root / f"proc/{pid}/cgroup").write_text(cgroups)
        (root / "proc/vmstat").write_text("pgfault 5\noom_kill 40\n")
        folder = root / top / "app.slice/ours"
        folder.mkdir(parents=True)
        self.file = folder / name
        self.killed(2)

    def killed(self, times: int) -> None:
        self.file.write_text(self.text.format(times))


@pytest.mark.parametrize("form", FORMS)
def test_a_count_that_rose_explains_one_death(tmp_path: Path, form: str) -> None:
    machine = Machine(tmp_path, form)
    kills = OomKills(tmp_path)
    for pid in PIDS:
        kills.watch(pid)
    assert kills.named(1, KILLED) == KILLED, "those were before"
    machine.killed(3)
    assert kills.named(2, "exit code 1") == "exit code 1"
    assert kills.named(3, KILLED) == VICTIM
    assert kills.named(4, KILLED) == KILLED, "it has explained one already"
    machine.killed(5)
    assert [kills.named(pid, KILLED) for pid in (5, 6, 7)] == [VICTIM, VICTIM, KILLED]


def test_without_a_cgroup_that_counts_the_machine_does(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "v2")
    machine.file.unlink()
    kills = OomKills(tmp_path)
    kills.watch(6)
    kills.watch(7)
    assert kills.named(6, KILLED) == KILLED
    (tmp_path / "proc/vmstat").write_text("oom_kill 41\n")
    assert kills.named(7, KILLED) == VICTIM


def test_one_whose_place_is_gone_counts_where_it_began(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "v2")
    kills = OomKills(tmp_path)
    kills.watch(7)
    (tmp_path / "proc/7/cgroup").unlink()
    machine.killed(3)
    assert kills.named(7, KILLED) == VICTIM


def limit_file() -> tuple[str, str]:
    v1 = Path("/sys/fs/cgroup/memory").is_dir()
    return ("memory", "memory.limit_in_bytes") if v1 else ("memory", "memory.max")


def test_a_worker_that_eats_all_memory_of_the_service() -> None:
    with cgroup(*limit_file()) as group:
        group.write(limit_file()[1], 400 * MEGABYTE)
        with group.inside():
            service = Service("faulty:serve", "-i", "2", cwd=APPS)
        with service:
            host, _, port = service.address.rpartition(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"eat\n")
                told = service.output.wait(r"worker (\d) \(pid (\d+)\) ended: (.*)", 60.0)
                assert told[3] == VICTIM
            service.wait_workers(lambda workers: len(workers) == 2)
            seen = len(service.output.lines)
            victim = service.workers()[0]
            os.kill(victim, signal.SIGKILL)
            assert "out of memory" not in service.output.wait("ended: .*", 60.0, seen)[0]
            service.wait_workers(lambda workers: workers.get(0, victim) != victim)


def test_a_worker_with_a_limit_of_its_own() -> None:
    async def main() -> None:
        with cgroup(*limit_file()) as group:
            group.write(limit_file()[1], 150 * MEGABYTE)

            def confine(event: Event) -> None:
                if event["event"] == "spawned":
                    group.add(event["pid"])

            async with running("faulty:serve", APPS, instances="1") as service:
                service.supervisor.events.subscribe(confine)
                for cause in (None, VICTIM, VICTIM, KILLED):
                    mark = service.mark()
                    if cause == VICTIM:
                        with pytest.raises((OSError, ValueError)):
                            await ask(service, "eat")
                    else:
                        kill(service.pids()[0])
                    assert (await service.until("exited", mark))["how"] == (cause or KILLED)
                    await service.until("worker-ready", mark)

    asyncio.run(main())

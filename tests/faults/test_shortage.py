"""Out of descriptors or of processes, whoever it is: told, tried again, and nobody else suffers."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import ControlKind
from tests.dispatch.rig import answer_of, rig
from tests.faults.kit import APPS, cgroup
from tests.harness import processes
from tests.harness.processes import Process
from tests.harness.servers import Service, wait_until

KINDS = ["python"] if _core.dispatcher_program() is None else ["c", "python"]
# Nobody is passed over, however long no core is his: no queue is being moved when a fault comes.
PATIENT = ("--stall-timeout", "60")


class Asking:
    """Four clients that ask all the time; what went wrong."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.errors: list[str] = []
        self.answers = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(4)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(self.address, timeout=30) as connection:
                    connection.sendall(b"hello\n")
                    answer = connection.makefile().read()
            except OSError as error:
                self.errors.append(repr(error))
                continue
            if answer.endswith("done"):
                self.answers += 1
            else:
                self.errors.append(f"answer: {answer!r}")

    def more(self, count: int = 20) -> None:
        """So many more answers come."""
        enough = self.answers + count
        wait_until(lambda: self.answers >= enough, 60.0, "they are served")

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(40)


@contextlib.contextmanager
def no_more_fds(pid: int) -> Iterator[None]:
    """It can open nothing more while this lasts."""
    # Its first three are its own until its end: whatever it closes meanwhile makes no room.
    assert {"0", "1", "2"} <= set(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def logger_of(service: Service) -> int:
    (found,) = [
        each.pid
        for each in processes.descendants(service.pid)
        if any(word.endswith("logger.py") for word in processes.command(each.pid))
    ]
    return found


def dispatcher_of(service: Service) -> int:
    return min(dispatchers(service), key=lambda each: each.started).pid


def dispatchers(service: Service) -> list[Process]:
    """It and, while a queue is taken back, its helpers, which are forks of it."""
    return [
        each
        for each in processes.descendants(service.pid)
        for command in (processes.command(each.pid),)
        if any("rr-dispatcher" in word for word in command[:1])
        or any("dispatch/__main__" in word for word in command)
    ]


def still(service: Service, before: list[Process]) -> None:
    """Nobody of it was replaced, and nobody is there who was not; but for the dispatcher's helpers,
    each of which goes again.
    """
    wait_until(lambda: service.processes() == before, 30.0, "the same processes, and no other")


@pytest.mark.parametrize("kind", KINDS)
def test_a_primary_without_descriptors(kind: str) -> None:
    """It can start neither worker nor dispatcher nor logger: what lives serves, then all come."""
    options = ("-i", "2", "--dispatcher", kind, *PATIENT)
    with Service("faulty:serve", *options, cwd=APPS) as service:
        before = os.listdir(f"/proc/{service.pid}/fd")
        with Asking(service.address) as asking:
            with no_more_fds(service.pid):
                victim = service.workers()[0]
                processes.kill(victim)
                text = r"worker 0: it could not be started: Too many open files"
                service.output.wait(text, 60.0)
                asking.more()
                processes.kill(logger_of(service))
                service.output.wait("the logger could not be started: Too many", 60.0)
                asking.more()
            service.output.wait("the logger was replaced", 60.0)
            service.wait_workers(lambda workers: workers.get(0, victim) != victim)
            again = service.workers()[0]
            wait_until(lambda: who(service.address) == again, 60.0, "it serves")
            asking.more()
            with no_more_fds(service.pid):
                processes.kill(dispatcher_of(service))
                service.output.wait("there is no dispatcher: Too many open files", 60.0)
            service.output.wait("the dispatcher was replaced", 60.0)
            asking.more()
        # The first victim held one in its hand, the dispatcher what it had accepted.
        assert len(asking.errors) <= 2, asking.errors
        wait_until(lambda: len(os.listdir(f"/proc/{service.pid}/fd")) <= len(before), 30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dispatcher_without_descriptors(kind: str) -> None:
    # Without take-backs: between a look for room and its receiving, the limit would drop one.
    options = ("-i", "2", "--dispatcher", kind, *PATIENT)
    with Service("faulty:serve", *options, cwd=APPS) as service:
        with Asking(service.address) as asking:
            asking.more()
            with no_more_fds(dispatcher_of(service)):
                service.output.wait("accepting failed: EMFILE", 60.0)
            asking.more()
        assert asking.errors == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_without_descriptors(kind: str) -> None:
    """It takes what it has no room for not at all: others do."""
    with Service("faulty:serve", "-i", "2", "--dispatcher", kind, cwd=APPS) as service:
        with Asking(service.address) as asking:
            asking.more()
            # By itself, between two takes: from outside it could be between its look for room
            # and the take that relies on it.
            pid, *before = numbers(service.address, "tight")
            asking.more(100)
            assert pid in service.workers().values()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (before[0], before[1]))
            asking.more(100)
        assert asking.errors == []


def pids_file() -> tuple[str, str]:
    return ("pids", "pids.max")


def test_an_app_that_takes_all_processes() -> None:
    """EAGAIN for every fork in the cgroup."""
    with cgroup(*pids_file()) as group:
        with group.inside():
            # Without take-backs, each of which is a process that ends and makes room.
            service = Service("faulty:serve", "-i", "2", *PATIENT, cwd=APPS)
        with service:
            group.write("pids.max", int(group.read("pids.current")) + 20)
            with Asking(service.address) as asking:
                asking.more()
                (taken,) = numbers(service.address, "fork 1000")
                assert 4 <= taken < 1000, "the group was full"
                bomber, other = (service.workers()[slot] for slot in (0, 1))
                if processes_of_group(bomber) < taken:
                    bomber, other = other, bomber
                # Its end gives back what it was, with its threads: still no room.
                group.write("pids.max", int(group.read("pids.current")) - taken // 2)
                processes.kill(other)
                said = service.output.wait(
                    r"worker (\d): it could not be started: Resource temporarily unavailable", 60.0
                )
                again = len(service.output.lines)
                service.output.wait(f"worker {said[1]}: it could not be started", 60.0, again)
                asking.more()
                processes.kill(bomber)  # its children go with its group: there is room again
                service.wait_workers(
                    lambda workers: len(workers) == 2 and not {bomber, other} & {*workers.values()},
                    60.0,
                )
                asking.more()
            assert len(asking.errors) <= 2, asking.errors


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_workers_queue_is_moved_without_a_process(kind: str) -> None:
    """What takes back is forked at need; where nothing can be, those who wait must not."""
    with cgroup(*pids_file()) as group, rig(kind) as made:
        made.listen()
        (dead,) = made.add(process=True)
        dead.stop()
        clients = made.connect_many(20)
        made.accepted(20)
        group.add(made.dispatcher.pid)
        group.write("pids.max", 1)
        made.add(process=True)
        dead.kill()
        made.event(ControlKind.DEAD, dead)
        assert set(answer_of(clients)) == {"1"}
        removed = made.ask(ControlKind.WORKER_REMOVE, worker=dead.id)
        assert removed.values[:3] == (20, 20, 0)
        assert group.read("pids.events").split() != ["max", "0"]


def told(address: str, said: str) -> list[str]:
    """The slot and the pid of who did it, and what was done."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{said}\n".encode())
        return connection.makefile().read().split()


def numbers(address: str, said: str) -> list[int]:
    """What was done, in numbers."""
    return [int(word) for word in told(address, said)[2:]]


def who(address: str) -> int:
    """Pid of the next one in turn."""
    return int(told(address, "hello")[1])


def processes_of_group(leader: int) -> int:
    """How many are in the process group that a worker leads."""
    found = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.getpgid(int(name)) == leader:
                found += 1
    return found


@pytest.mark.parametrize("lost", ["dispatcher", "logger"])
def test_a_stop_ends_also_without_the_one_that_cannot_be_had(lost: str) -> None:
    options = ("-i", "2", "--drain-timeout", "4")
    with Service("faulty:serve", *options, cwd=APPS) as service:
        family = service.processes()
        with no_more_fds(service.pid):
            processes.kill(dispatcher_of(service) if lost == "dispatcher" else logger_of(service))
            service.output.wait("Too many open files", 60.0)
            service.send_signal(signal.SIGTERM)
            assert service.popen.wait(60) == 0
        left = processes.wait_gone(family, 20.0)
        assert not left, [processes.command(each.pid) for each in left]

"""Who listens where: one listener per address, shared by all who ask, gone with the last one."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from pathlib import Path

from tests.harness.ports import kept_port
from tests.harness.servers import wait_until
from tests.node.script import WITHIN, Script, Service, who


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def listeners(port: int) -> int:
    """Sockets that listen on it."""
    address = f" 0100007F:{port:04X} 00000000:0000 0A "
    return Path("/proc/net/tcp").read_text().count(address)


def test_eight_workers_on_two_ports_in_turn(tmp_path: Path) -> None:
    one, other = kept_port(), kept_port()
    with Service(tmp_path, 8, one, other, env={"PATIENT": "1"}) as service:
        told = Counter((line["worker"], line["port"]) for line in service.of("listening"))
        assert told == {(worker, port): 1 for worker in range(1, 9) for port in (one, other)}
        for port in (one, other):
            wait_until(lambda p=port: len(set(service.ask(8, p))) == 8, WITHIN)
            wait_until(lambda p=port: set(Counter(service.ask(80, p)).values()) == {10}, WITHIN)
        assert service.end() == 0
    assert refused(one)
    assert refused(other)


def test_two_clusters_on_one_port(tmp_path: Path) -> None:
    """The second one's worker is told EADDRINUSE, and serves when the first one is gone."""
    port = kept_port()
    with Service(tmp_path, 2, port) as first, Script("retry.py", str(port)) as second:
        wait_until(lambda: bool(second.of("in-use")), WITHIN)
        wait_until(lambda: set(first.ask(4)) == {"1", "2"}, WITHIN)
        assert first.end() == 0
        wait_until(lambda: bool(second.of("listening")), WITHIN)
        assert {line["errno"] for line in second.of("in-use")} == {errno.EADDRINUSE}
        assert who(f"127.0.0.1:{port}") == "1"
        second.send_signal(15)
        second.wait(WITHIN)
        second.assert_nothing_left(WITHIN)


def test_in_use_by_a_stranger_and_tried_again() -> None:
    port = kept_port()
    stranger = socket.create_server(("127.0.0.1", port))
    with stranger, Script("retry.py", str(port)) as script:
        wait_until(lambda: bool(script.of("in-use")), WITHIN)
        assert not script.of("listening")
        stranger.close()
        wait_until(lambda: bool(script.of("listening")), WITHIN)
        assert who(f"127.0.0.1:{port}") == "1"
        script.send_signal(15)
        script.wait(WITHIN)
        script.assert_nothing_left(WITHIN)


def test_the_last_worker_takes_the_port_with_it(tmp_path: Path) -> None:
    """And the script lives on, and another worker may have it."""
    port = kept_port()
    with Service(tmp_path, 2, port) as service:
        service.order("disconnect 1")
        service.wait_for("exit", 1)
        assert set(service.ask(3)) == {"2"}
        service.order("disconnect 2")
        service.wait_for("exit", 2)
        assert service.wait(WITHIN) == 0
        assert refused(port)


def test_a_successor_forked_at_once_finds_the_clients_that_wait(tmp_path: Path) -> None:
    """In Node they would be refused: its only worker died, and its port with it."""
    port = kept_port()
    with Service(tmp_path, 1, port) as service:
        service.order("kill 1")
        service.wait_for("exit", 1)
        assert service.ask(2) == ["2", "2"]
        assert service.end() == 0


def test_sched_none_shares_the_listener(tmp_path: Path) -> None:
    port = kept_port()
    with Service(tmp_path, 2, port, env={"NODE_CLUSTER_SCHED_POLICY": "none"}) as service:
        assert set(service.ask(40)) <= {"1", "2"}
        # It is read in pieces, between which others open and close theirs.
        wait_until(lambda: listeners(port) == 1, WITHIN)
        service.order("disconnect 1")
        service.wait_for("exit", 1)
        assert set(service.ask(5)) == {"2"}
        assert service.end() == 0
    assert refused(port)

"""Workers that come and go under load: nothing that was accepted is lost."""

from __future__ import annotations

from pathlib import Path

from tests.harness.load import Load
from tests.harness.ports import kept_port
from tests.harness.records import REFUSED, Plan
from tests.node.script import WITHIN, Service


def test_replaced_one_by_one_under_load(tmp_path: Path) -> None:
    """fork(), and when it listens, disconnect() of the old one: each worker, twice."""
    port = kept_port()
    with Service(tmp_path, 2, port) as service:
        plan = Plan(service.address, "closed", concurrency=8, path="/slow", timeout=WITHIN)
        with Load(plan) as load:
            load.wait_more(20, WITHIN)
            for old in range(1, 5):
                service.order(f"replace {old}")
                service.wait_for("exit", old)
                load.wait_more(20, WITHIN)
            records = load.stop()
        gone = service.of("exit")
        assert service.end() == 0
    assert not records.failed
    assert [(one["code"], one["signal"], one["after"]) for one in gone] == [(0, None, True)] * 4


def test_last_ones_disconnect_under_load(tmp_path: Path) -> None:
    """cluster.disconnect(): who was let in is answered, whoever comes later is refused."""
    port = kept_port()
    with Service(tmp_path, 2, port) as service:
        plan = Plan(service.address, "closed", concurrency=8, path="/slow", timeout=WITHIN)
        with Load(plan) as load:
            load.wait_more(40, WITHIN)
            assert service.end() == 0
            load.wait_for(lambda records: any(one.outcome == REFUSED for one in records), WITHIN)
            records = load.stop()
        gone = service.of("exit")
    outcomes = records.outcomes()
    assert outcomes.keys() == {"ok", REFUSED}, outcomes
    assert {(one["code"], one["after"]) for one in gone} == {(0, True)}


def test_killed_under_load_loses_only_what_it_had(tmp_path: Path) -> None:
    port = kept_port()
    with Service(tmp_path, 2, port) as service:
        plan = Plan(service.address, "closed", concurrency=8, path="/slow", timeout=WITHIN)
        with Load(plan) as load:
            load.wait_more(20, WITHIN)
            service.order("kill 1")
            service.wait_for("listening", 3)
            load.wait_more(40, WITHIN)
            records = load.stop()
        assert service.of("exit")[0]["signal"] == "SIGKILL"
        assert service.end() == 0
    failed = records.failed
    assert len(failed) <= 8
    assert not [record for record in failed if record.outcome == REFUSED]

"""The figures, read by the reader of the library that is written for them."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from rrdispatch.control import metrics
from rrdispatch.errors import MissingExtraError

prometheus = pytest.importorskip("prometheus_client.parser")

STATS: dict[str, Any] = {
    "state": "serving", "degraded": False, "generation": 3, "wanted": 2, "serving": 2,
    "accepted": 100, "moved": 4, "lost": 0, "version": '1.0 "beta"\n', "policy": "round-robin",
    "dispatcher": "c",
    "slots": [
        {"slot": 0, "connections": 50, "requests": 60, "restarts": 1},
        {"slot": 1, "connections": 48, "requests": 55, "restarts": 0},
    ],
    "workers": [
        {"slot": 0, "pid": 1, "state": "ready", "inflight": 5, "pending": 1, "busy": 2,
         "stalled": False},
        {"slot": 0, "pid": 1, "state": "draining", "inflight": 2, "pending": 0, "busy": 1,
         "stalled": True},
        {"slot": 1, "pid": 1, "state": "ready", "inflight": 4, "pending": 0, "busy": 0,
         "stalled": False},
    ],
}  # fmt: skip


def read(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in prometheus.text_string_to_metric_families(text.decode()):
        assert family.documentation, family.name
        assert family.type != "untyped", family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "said twice"
            found[key] = sample.value
    return found


def test_each_figure() -> None:
    found = read(metrics.text({"web": STATS, "gone": None}))
    app = ("app", "web")
    assert found["rrdispatch_up", (app,)] == 1
    assert found["rrdispatch_up", (("app", "gone"),)] == 0
    assert found["rrdispatch_ready", (app,)] == 1
    assert found["rrdispatch_generation", (app,)] == 3
    assert found["rrdispatch_state", (app, ("state", "serving"))] == 1
    assert found["rrdispatch_state", (app, ("state", "stopping"))] == 0
    assert found["rrdispatch_connections_accepted_total", (app,)] == 100
    assert found["rrdispatch_workers", (app, ("state", "ready"))] == 2
    slot = (app, ("slot", "0"))
    assert found["rrdispatch_slot_connections_total", slot] == 50
    assert found["rrdispatch_slot_restarts_total", slot] == 1
    assert found["rrdispatch_slot_open_connections", slot] == 7
    assert found["rrdispatch_slot_stalled", slot] == 1
    assert found["rrdispatch_slot_resident_memory_bytes", slot] > 0
    (info,) = [labels for name, labels in found if name == "rrdispatch_app_info"]
    assert dict(info)["version"] == STATS["version"]  # escaped, and read again


@pytest.mark.parametrize("state", ["stopping", "stopped", "down"])
def test_ready_means_that_it_serves_and_goes_on(state: str) -> None:
    stats = {**STATS, "state": state, "serving": 0 if state == "down" else 2}
    assert read(metrics.text({"web": stats}))["rrdispatch_ready", (("app", "web"),)] == 0


def test_of_nothing() -> None:
    assert not read(metrics.text({}))


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: Any) -> Any:
        if name == "prometheus_client":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as failed:
        metrics.text({"web": STATS})
    assert str(failed.value.hint).endswith(' -m pip install "rrdispatch[metrics]"')

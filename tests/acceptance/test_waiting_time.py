"""Promise 3: a request waits no longer for a worker than it would in gunicorn's shared queue.

1 % of the requests block their worker for 500 ms, the others for 1 ms; one thread per worker, a
connection per request, Poisson arrivals. Waiting is latency minus the time inside the app. Both
servers get the same arrivals, in interleaved rounds; medians over the rounds are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median

import pytest

from tests.acceptance.conftest import Show
from tests.harness.load import run_load
from tests.harness.records import Plan, quantile
from tests.harness.servers import Gunicorn, Service
from tests.harness.sizes import FULL, size

pytestmark = pytest.mark.slow

WORKERS = 4
SLOW_SHARE, SLOW_MS, QUICK_MS = 0.01, 500, 1
SERVICE_SECONDS = (SLOW_SHARE * SLOW_MS + (1 - SLOW_SHARE) * QUICK_MS) / 1000
ROUNDS = {0.3: 5, 0.6: 15}  # the fuller the workers, the more is chance
SECONDS = size(2.5, 20.0)
ALLOWANCE_MS = 2.0


@dataclass(frozen=True)
class Waiting:
    """Milliseconds."""

    mean: float
    p90: float
    p99: float

    def __str__(self) -> str:
        return f"mean {self.mean:.2f} p90 {self.p90:.2f} p99 {self.p99:.1f}"


def measure(address: str, load: float, seed: int) -> Waiting:
    rate = load * WORKERS / SERVICE_SECONDS
    plan = Plan(
        address,
        rate=rate,
        count=int(rate * SECONDS),
        poisson=True,
        seed=seed,
        slow_share=SLOW_SHARE,
        path=f"/block/{QUICK_MS}",
        slow_path=f"/block/{SLOW_MS}",
    )
    tally = run_load(plan)
    assert not tally.failed, str(tally)
    waiting = [each.waiting_ms for each in tally.ok]
    return Waiting(mean(waiting), quantile(waiting, 0.90), quantile(waiting, 0.99))


def medians(rounds: list[Waiting]) -> Waiting:
    return Waiting(
        median(each.mean for each in rounds),
        median(each.p90 for each in rounds),
        median(each.p99 for each in rounds),
    )


@pytest.mark.skipif(
    not FULL, reason="compares times: `make accept`, on a machine that does nothing else"
)
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("load", ROUNDS)
def test_waiting_beside_gunicorn(load: float, show: Show) -> None:
    ours: list[Waiting] = []
    theirs: list[Waiting] = []
    options = ["-i", str(WORKERS), "--threads", "1", "--no-access-log"]
    with Service("probe:wsgi", *options) as service, Gunicorn("probe:wsgi", WORKERS) as gunicorn:
        for seed in range(ROUNDS[load]):
            ours.append(measure(service.address, load, seed))
            theirs.append(measure(gunicorn.address, load, seed))
    mine, peer = medians(ours), medians(theirs)
    what = f"waiting in ms at load {load}, {len(ours)} rounds of {SECONDS:g} s"
    show("3", what, f"rrdispatch {mine}; gunicorn sync {peer}")
    assert mine.mean <= peer.mean + ALLOWANCE_MS
    assert mine.p90 <= peer.p90 + ALLOWANCE_MS

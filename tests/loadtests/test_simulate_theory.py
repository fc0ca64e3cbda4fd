"""The simulation against closed forms. Tolerances are the runs' own: so many standard errors of the
mean of 20 batches; seeds are fixed, so that a result is the same every time.
"""

from __future__ import annotations

import statistics

import pytest

from loadtests import sim_theory as theory
from loadtests.sim_engine import Kind, Policy, Record, simulate
from loadtests.sim_ours import Ours
from loadtests.sim_policies import Hash, Racing, Textbook
from loadtests.sim_report import batch_means, settled, standard_error
from loadtests.sim_work import (
    SERVICES,
    Service,
    Work,
    constant,
    exponential,
    lognormal,
    mixed,
    pareto,
)

MS = 0.001
SIGMAS = 3.5  # of Student's t with 19 degrees of freedom: wrong in 1 of 400 seeds
REQUESTS = 40_000


def assert_mean(record: Record, expected: float, most_error: float = 0.15) -> None:
    """Within the run's own confidence, which must be narrow enough to say something."""
    waits = settled(record)
    error = standard_error(batch_means(waits))
    mean = statistics.fmean(waits)
    assert error < most_error * expected, f"the run says nothing: {mean} ± {error}"
    assert abs(mean - expected) < SIGMAS * error, f"{mean} ± {error}, expected {expected}"


def at_load(service: Service, load: float, servers: int, requests: int = REQUESTS) -> Work:
    return Work.at_load(service, load, servers, requests, seed=7)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mm1(load: float) -> None:
    work = at_load(exponential(), load, 1)
    expected = load * MS / (1 - load)
    assert theory.mmc_waiting(work.rate, MS) == pytest.approx(expected)
    assert theory.mg1_waiting(work.rate, MS, work.service.second) == pytest.approx(expected)
    assert_mean(simulate(work, 1, Kind(), Textbook()), expected)


@pytest.mark.parametrize(("workers", "load"), [(4, 0.8), (16, 0.9), (256, 0.98)])
def test_racing_is_mmc(workers: int, load: float) -> None:
    work = at_load(exponential(), load, workers, 2 * REQUESTS)
    expected = theory.mmc_waiting(work.rate, MS, workers)
    assert_mean(simulate(work, workers, Kind(), Racing()), expected, most_error=0.25)


def test_quantile_of_mmc() -> None:
    work = at_load(exponential(), 0.8, 4, 2 * REQUESTS)
    waits = settled(simulate(work, 4, Kind(), Racing()))
    limit = theory.mmc_waiting_quantile(work.rate, MS, 4, 0.9)
    above = [float(wait > limit) for wait in waits]
    assert abs(statistics.fmean(above) - 0.1) < SIGMAS * standard_error(batch_means(above))


@pytest.mark.parametrize(
    "policy", [Textbook(), Racing(), Ours("round-robin", queue_limit=10**6)], ids=lambda p: p.name
)
def test_threads_of_one_worker_are_mmc(policy: Policy) -> None:
    work = at_load(exponential(), 0.8, 4)
    assert_mean(simulate(work, 1, Kind(4), policy), theory.mmc_waiting(work.rate, MS, 4))


@pytest.mark.parametrize(
    ("service", "load", "most_error"),
    [
        (constant(), 0.8, 0.1),
        (mixed(), 0.5, 0.25),
        (pareto(high=0.1, alpha=1.5), 0.6, 0.25),
        (lognormal(sigma=1.0), 0.6, 0.2),
    ],
    ids=lambda value: value.name if isinstance(value, Service) else "",
)
def test_hash_is_mg1_per_worker(service: Service, load: float, most_error: float) -> None:
    """Pollaczek-Khinchine; M/D/1 with the constant."""
    work = at_load(service, load, 4, 2 * REQUESTS)
    expected = theory.mg1_waiting(work.rate / 4, service.mean, service.second)
    record = simulate(work, 4, Kind(), Hash())
    assert_mean(record, expected, most_error)


def test_event_loop_that_blocks_is_mg1() -> None:
    """What it has in hand and what waits outside are one queue to a client."""
    work = at_load(exponential(), 0.7, 1)
    assert_mean(simulate(work, 1, Kind(0), Textbook()), 0.7 * MS / 0.3)


@pytest.mark.parametrize("workers", [2, 8])
def test_textbook_turn_is_erlang_arrivals(workers: int) -> None:
    work = at_load(exponential(), 0.8, workers, 2 * REQUESTS)
    expected = theory.erlang_arrivals_waiting(work.rate, MS, workers)
    assert_mean(simulate(work, workers, Kind(), Textbook()), expected)


def test_forms_agree_where_they_meet() -> None:
    assert theory.erlang_c(0.5, 1.0, 1) == pytest.approx(0.5)
    # Tables of Erlang C: 2 servers with 1 Erlang, 10 with 8.
    assert theory.erlang_c(1.0, 1.0, 2) == pytest.approx(1 / 3)
    assert theory.erlang_c(8.0, 1.0, 10) == pytest.approx(0.4092, abs=1e-4)
    assert theory.erlang_arrivals_waiting(0.8, 1.0, 1) == pytest.approx(4.0, rel=1e-9)
    with pytest.raises(ValueError, match="no steady state"):
        theory.mmc_waiting(2.0, 1.0, 2)


@pytest.mark.parametrize("name", SERVICES)
def test_moments_of_what_is_drawn(name: str) -> None:
    """E[S] and E[S^2] as declared: the closed forms are fed with them."""
    import random

    rng = random.Random(3)
    service = {"pareto": pareto(high=0.1, alpha=1.5), "lognormal": lognormal(sigma=0.8)}.get(name)
    service = service or SERVICES[name]()
    drawn = [service.draw(rng) for _ in range(100_000)]
    for power, expected in ((1, service.mean), (2, service.second)):
        values = [each**power for each in drawn]
        error = standard_error(batch_means(values)) + 1e-9
        assert error < 0.1 * expected
        assert abs(statistics.fmean(values) - expected) < SIGMAS * error

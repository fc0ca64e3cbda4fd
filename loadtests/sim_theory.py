"""Closed forms that the simulation is checked against. Times in seconds, rates per second.

Symbols as in L. Kleinrock, "Queueing Systems, Volume 1: Theory", Wiley 1975: ``rate`` is lambda,
``mean`` is 1/mu, ``servers`` is m, rho = rate * mean / servers.
"""

from __future__ import annotations

import math


def utilisation(rate: float, mean: float, servers: int = 1) -> float:
    """rho; a queue with rho >= 1 has no steady state."""
    rho = rate * mean / servers
    if not 0 < rho < 1:
        raise ValueError(f"no steady state: the load is {rho:.3f}")
    return rho


def erlang_c(rate: float, mean: float, servers: int) -> float:
    """Probability that a customer of an M/M/c queue has to wait.

    A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in
    automatic telephone exchanges", 1917; Kleinrock, equation 3.40. By the recursion of Erlang B,
    which does not overflow for hundreds of servers.
    """
    rho = utilisation(rate, mean, servers)
    offered, blocked = rate * mean, 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - rho * (1 - blocked))


def mmc_waiting(rate: float, mean: float, servers: int = 1) -> float:
    """Mean waiting in M/M/c, M/M/1 with one server. Kleinrock, sections 3.2 and 3.5."""
    return erlang_c(rate, mean, servers) / (servers / mean - rate)


def mmc_waiting_quantile(rate: float, mean: float, servers: int, share: float) -> float:
    """The waiting that `share` of the customers stay below: P(W > t) = C exp(-(c mu - lambda) t).

    D. Gross, C. M. Harris, "Fundamentals of Queueing Theory", Wiley: the M/M/c queue.
    """
    waits = erlang_c(rate, mean, servers)
    return max(0.0, math.log(waits / (1 - share)) / (servers / mean - rate))


def mg1_waiting(rate: float, mean: float, second: float) -> float:
    """Mean waiting in M/G/1; `second` is E[S^2]. With second = mean^2 this is M/D/1.

    F. Pollaczek 1930, A. Khinchine 1932; Kleinrock, section 5.6.
    """
    return rate * second / (2 * (1 - utilisation(rate, mean)))


def erlang_arrivals_waiting(rate: float, mean: float, workers: int) -> float:
    """Mean waiting at each of `workers` exponential servers that get Poisson arrivals in turn.

    Each sees every n-th arrival: E_n/M/1. Mean waiting of GI/M/1 is sigma / (mu (1 - sigma)) with
    the root sigma of sigma = A*(mu (1 - sigma)), A* the transform of the time between arrivals.
    Kleinrock, chapter 6. `rate` is that of all workers together.
    """
    utilisation(rate, mean, workers)
    sigma = 0.0
    for _ in range(100_000):
        following = (rate / (rate + (1 - sigma) / mean)) ** workers
        if abs(following - sigma) < 1e-14:
            break
        sigma = following
    return sigma * mean / (1 - sigma)

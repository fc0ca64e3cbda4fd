"""What arrives: distributions of service times, and a stream of connections with their requests.

A stream depends on its seed only, never on the policy: all policies get the very same arrivals and
service times, so that their difference is theirs and not chance's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MS = 0.001


@dataclass(frozen=True)
class Service:
    """A distribution of service times: seconds, with its first two moments."""

    name: str
    mean: float
    second: float
    draw: Callable[[random.Random], float]

    @property
    def variation(self) -> float:
        """Squared coefficient of variation: 0 for a constant, 1 for the exponential."""
        return self.second / self.mean**2 - 1


def exponential(mean: float = MS) -> Service:
    return Service("exponential", mean, 2 * mean**2, lambda rng: rng.expovariate(1 / mean))


def constant(mean: float = MS) -> Service:
    return Service("constant", mean, mean**2, lambda _: mean)


def mixed(quick: float = MS, slow: float = 500 * MS, share: float = 0.01) -> Service:
    """Most requests are quick; `share` of them blocks for long. The mix of the acceptance tests."""
    mean = (1 - share) * quick + share * slow
    second = (1 - share) * quick**2 + share * slow**2
    return Service("mixed", mean, second, lambda rng: slow if rng.random() < share else quick)


def pareto(low: float = MS, high: float = 10.0, alpha: float = 1.1) -> Service:
    """Bounded Pareto: the sizes of jobs on Unix machines and of files on the web.

    M. Harchol-Balter, M. Crovella, C. Murta, "On choosing a task assignment policy for a
    distributed server system", J. Parallel and Distributed Computing 59 (1999).
    """
    ratio = (low / high) ** alpha

    def moment(power: int) -> float:
        scale = alpha * low**alpha / (1 - ratio)
        value: float = scale * (low ** (power - alpha) - high ** (power - alpha)) / (alpha - power)
        return value

    def draw(rng: random.Random) -> float:
        return low * math.pow(1 - rng.random() * (1 - ratio), -1 / alpha)

    return Service("pareto", moment(1), moment(2), draw)


def lognormal(median: float = 5 * MS, sigma: float = 1.5) -> Service:
    mean = median * math.exp(sigma**2 / 2)
    second = median**2 * math.exp(2 * sigma**2)
    location = math.log(median)
    return Service("lognormal", mean, second, lambda rng: rng.lognormvariate(location, sigma))


def stretched(service: Service, factor: float) -> Service:
    """The same, slower."""
    return Service(
        service.name,
        service.mean * factor,
        service.second * factor**2,
        lambda rng: service.draw(rng) * factor,
    )


def later(service: Service, more: float) -> Service:
    """The same, and a constant on top."""
    second = service.second + 2 * more * service.mean + more**2
    return Service(service.name, service.mean + more, second, lambda rng: service.draw(rng) + more)


SERVICES: dict[str, Callable[[], Service]] = {
    each.__name__: each for each in (mixed, exponential, constant, pareto, lognormal)
}


@dataclass(slots=True)
class Connection:
    """A connection and what its client will ask: one request, or several after pauses."""

    number: int
    source: int
    demands: list[float]  # seconds of blocking work, one per request
    awaits: list[float]  # seconds that a request then waits for others without blocking
    pauses: list[float]  # seconds between an answer and the next request
    asked: float = 0.0  # when the request under way was sent
    at: int = 0  # which request is under way


@dataclass(frozen=True)
class Work:
    """A stream of connections. `rate` is that of connections, `keep` requests are on each."""

    service: Service
    rate: float
    count: int
    seed: int = 1
    keep: int = 1
    pause: float = 100 * MS
    awaits: float = 0.0
    sources: int = 100_000

    @classmethod
    def at_load(
        cls, service: Service, load: float, servers: int, requests: int, seed: int = 1
    ) -> Work:
        """As much as keeps `servers` threads or loops busy for the share `load` of the time."""
        return cls(service, load * servers / service.mean, requests, seed)

    def connections(self) -> Iterator[tuple[float, Connection]]:
        """Poisson arrivals in order of time."""
        rng = random.Random(self.seed)
        draw, keep, now = self.service.draw, self.keep, 0.0
        for number in range(self.count):
            now += rng.expovariate(self.rate)
            source = rng.randrange(self.sources)
            demands = [draw(rng) for _ in range(keep)]
            awaits = [rng.expovariate(1 / self.awaits) if self.awaits else 0.0 for _ in demands]
            pauses = [rng.expovariate(1 / self.pause) if self.pause else 0.0 for _ in demands[1:]]
            yield now, Connection(number, source, demands, awaits, pauses)

"""When each request is due: seeded, pure, and the same for every generator, which each take their own part of it.

A schedule never depends on how the server answers; only a closed loop (`Concurrency`) does, and says so by having no
due times.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from espalier_kit.errors import Misconfigured

MAX_ARRIVALS = 5_000_000
"""More than this in one run is a slip of the keyboard: the schedule would not fit into a generator's memory."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One request every 1 / `rate` seconds."""

    rate: float


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent users: exponential gaps, `rate` requests per second on average."""

    rate: float


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma gaps with coefficient of variation `cv`: above 1 bursts, 1 is Poisson, towards 0 constant."""

    rate: float
    cv: float


@dataclass(frozen=True, slots=True)
class Ramp:
    """A Poisson process whose rate goes in a straight line from `start` to `end` requests per second."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Poisson stages, one rate after the other, each as long as the next."""

    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A closed loop: `users` requests in flight, the next one sent as soon as one has ended."""

    users: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded arrivals, replayed `speed` times as fast."""

    arrivals: tuple[Arrival, ...]
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: due `at_s` seconds after the start, about item `index`. Lengths only where a trace gives them."""

    index: int
    at_s: float
    stage: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None


Pattern = Constant | Poisson | Gamma | Ramp | Sweep | Concurrency | Trace


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a run ends: after `duration_s`, after `requests`, or at what comes first."""

    duration_s: float | None = None
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one generator sends. `users` is None in an open loop, where `arrivals` holds every request.

    In a closed loop `arrivals` is empty: its items are numbered `first`, `first` + `step`, … until the bounds end it.
    """

    arrivals: tuple[Arrival, ...]
    bounds: Bounds
    users: int | None = None
    first: int = 0
    step: int = 1

    def numbers(self) -> Iterator[int]:
        """The item numbers of a closed loop."""
        numbers = itertools.count(self.first, self.step)
        end = self.bounds.requests
        return numbers if end is None else itertools.takewhile(lambda number: number < end, numbers)


def schedule(pattern: Pattern, bounds: Bounds, *, seed: int) -> Schedule:
    """The whole run's schedule. Raises `Misconfigured` with a sentence for a pattern that cannot be followed."""
    _check(pattern, bounds)
    if isinstance(pattern, Concurrency):
        return Schedule((), bounds, users=pattern.users)
    if isinstance(pattern, Trace):
        due: Iterable[Arrival] = (replace(a, at_s=a.at_s / pattern.speed) for a in pattern.arrivals)
    else:
        due = (Arrival(i, at, stage) for i, (at, stage) in enumerate(_times(pattern, bounds, random.Random(seed))))
    return Schedule(tuple(_bounded(due, bounds)), bounds)


def part(whole: Schedule, *, number: int, of: int) -> Schedule:
    """Generator `number`'s share (from 0) of a schedule that `of` generators follow together: every request once."""
    if not 0 <= number < of:
        raise Misconfigured(f"generator {number} of {of}: count from 0 to {of - 1}", reason="NoSuchGenerator")
    if whole.users is None:
        return replace(whole, arrivals=tuple(a for a in whole.arrivals if a.index % of == number))
    users = whole.users // of + (number < whole.users % of)
    return replace(whole, users=users, first=number, step=of)


def _times(
    pattern: Constant | Poisson | Gamma | Ramp | Sweep, bounds: Bounds, chance: random.Random
) -> Iterator[tuple[float, int]]:
    match pattern:
        case Constant(rate):
            return ((i / rate, 0) for i in itertools.count())
        case Poisson(rate):
            return ((at, 0) for at in _renewal(chance, rate=rate, cv=1.0))
        case Gamma(rate, cv):
            return ((at, 0) for at in _renewal(chance, rate=rate, cv=cv))
        case Ramp():
            return ((at, 0) for at in _ramp(pattern, bounds.duration_s or 0.0, chance))
        case Sweep(rates):
            return _stages(rates, bounds.duration_s or 0.0, chance)


def _renewal(chance: random.Random, *, rate: float, cv: float) -> Iterator[float]:
    """Arrival times with gamma gaps: shape 1 / cv², mean 1 / rate."""
    at = 0.0
    while True:
        gap = -math.log(1.0 - chance.random()) if cv == 1.0 else chance.gammavariate(1 / cv**2, cv**2)
        at += gap / rate
        yield at


def _ramp(ramp: Ramp, duration_s: float, chance: random.Random) -> Iterator[float]:
    """Unit-rate arrivals through the inverse of the ramp's cumulated rate (start·t + slope·t² / 2)."""
    slope = (ramp.end - ramp.start) / duration_s
    expected = duration_s * (ramp.start + ramp.end) / 2
    for area in _renewal(chance, rate=1.0, cv=1.0):
        if area >= expected:
            return
        # The usual root formula, turned so that a slope of zero does no harm.
        yield 2 * area / (ramp.start + math.sqrt(max(0.0, ramp.start**2 + 2 * slope * area)))


def _stages(rates: tuple[float, ...], duration_s: float, chance: random.Random) -> Iterator[tuple[float, int]]:
    length = duration_s / len(rates)
    for stage, rate in enumerate(rates):
        for at in itertools.takewhile(lambda at: at < length, _renewal(chance, rate=rate, cv=1.0)):
            yield stage * length + at, stage


def _bounded(due: Iterable[Arrival], bounds: Bounds) -> Iterator[Arrival]:
    for count, arrival in enumerate(due):
        if bounds.requests is not None and count >= bounds.requests:
            return
        if bounds.duration_s is not None and arrival.at_s >= bounds.duration_s:
            return
        if count >= MAX_ARRIVALS:
            raise Misconfigured(f"more than {MAX_ARRIVALS} requests: shorten the run", reason="ScheduleTooLong")
        yield arrival


def _numbers(pattern: Pattern) -> tuple[float, ...]:
    """What of a pattern must be above 0."""
    match pattern:
        case Constant(rate) | Poisson(rate):
            return (rate,)
        case Gamma(rate, cv):
            return rate, cv
        case Ramp(start, end):
            return (start + end,)
        case Sweep(rates):
            return rates
        case Concurrency(users):
            return (users,)
        case Trace(_, speed):
            return (speed,)


def _check(pattern: Pattern, bounds: Bounds) -> None:
    rates = _numbers(pattern)
    if not rates or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise Misconfigured(f"{type(pattern).__name__}: rates, cv, users and speed are above 0", reason="BadLoad")
    if isinstance(pattern, Ramp) and min(pattern.start, pattern.end) < 0:
        raise Misconfigured("a ramp's rates are not below 0", reason="BadLoad")
    if isinstance(pattern, Ramp | Sweep) and not bounds.duration_s:
        raise Misconfigured(f"a {type(pattern).__name__.lower()} needs a duration", reason="BadLoad")
    if not isinstance(pattern, Trace) and bounds.duration_s is None and bounds.requests is None:
        raise Misconfigured("say how long the run is: a duration, a number of requests, or both", reason="BadLoad")
    if any(bound is not None and bound <= 0 for bound in (bounds.duration_s, bounds.requests)):
        raise Misconfigured("a run's duration and number of requests are above 0", reason="BadLoad")

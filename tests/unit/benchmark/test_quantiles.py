"""Percentiles: their bounds hold whatever the distribution, and too few samples are said to be too few."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from espalier_benchmark.quantiles import percentiles, ranks, samples_needed

SHAPES: dict[str, tuple[Callable[[random.Random], float], Callable[[float], float]]] = {
    "uniform": (lambda chance: chance.random(), lambda q: q),
    "exponential": (lambda chance: chance.expovariate(1.0), lambda q: -math.log(1 - q)),
    "heavy tail": (lambda chance: chance.paretovariate(1.1), lambda q: (1 - q) ** (-1 / 1.1)),
}


@pytest.mark.parametrize("q", [0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bounds_hold_the_true_percentile_95_times_in_100(
    shape: tuple[Callable[[random.Random], float], Callable[[float], float]], q: float
) -> None:
    draw, truth = shape
    chance, held = random.Random(11), 0
    for _ in range(600):
        (found,) = percentiles([draw(chance) for _ in range(200)], qs=(q,))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth(q) <= found.high
    assert held / 600 >= 0.94


def test_the_bounds_of_a_median_of_100_are_those_of_the_tables() -> None:
    """Ranks 40 and 61: the tightest pair with at most 2.5 % on each side."""
    assert ranks(100, 0.5, 0.95) == (40, 61)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688)])
def test_a_percentile_needs_its_samples(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    (enough,) = percentiles(range(needed), qs=(q,))
    (too_few,) = percentiles(range(needed - 1), qs=(q,))
    assert enough.value is not None
    assert (too_few.value, too_few.n) == (None, needed - 1)


def test_a_percentile_is_an_order_statistic() -> None:
    (found,) = percentiles([float(v) for v in range(1, 1001)], qs=(0.99,))
    assert found.value == 990.0
    assert found.name == "p99"


def test_requests_that_never_ended_count_as_longer_than_all() -> None:
    (clean,) = percentiles([1.0] * 900 + [2.0] * 100, qs=(0.5,), censored=1000)
    assert (clean.n, clean.value) == (2000, None)
    (moved,) = percentiles([1.0] * 900 + [2.0] * 100, qs=(0.9,), censored=20)
    assert (moved.n, moved.value) == (1020, 2.0)


def test_nothing_measured_has_no_percentile() -> None:
    assert [p.value for p in percentiles([])] == [None] * 5

"""The few statistics that a fair comparison needs, on numpy alone and seeded. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 4000
MIN_BLOCKS = 6
"""Fewer pairs cannot reach p < 0.05 in a two-sided sign-flip test (2 / 2⁵ = 0.0625), whatever was measured."""
_EXACT_FLIPS = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of paired differences with its interval, and the p-value of there being none."""

    value: float
    low: float
    high: float
    p: float


def paired_mean(differences: Sequence[float], *, alpha: float, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Studentised bootstrap interval (Efron and Tibshirani, An Introduction to the Bootstrap, 12.5) and sign-flip test.

    The studentised form keeps its level with the few tens of blocks a run has; the percentile form does not.
    """
    values = np.asarray(differences, dtype=np.float64)
    mean, error = float(values.mean()), _standard_error(values)
    if error == 0.0:
        return Estimate(mean, mean, mean, sign_flip_p(values, seed=seed, resamples=resamples))
    chance = np.random.default_rng(seed)
    drawn = values[chance.integers(0, len(values), size=(resamples, len(values)))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(len(values))
    usable = errors > error * 1e-6
    ratios = (drawn.mean(axis=1)[usable] - mean) / errors[usable]
    upper, lower = np.quantile(ratios, [1 - alpha / 2, alpha / 2])
    return Estimate(
        mean,
        mean - float(upper) * error,
        mean - float(lower) * error,
        sign_flip_p(values, seed=seed, resamples=resamples),
    )


def sign_flip_p(values: Floats, *, seed: int, resamples: int = RESAMPLES) -> float:
    """Two-sided: how often the mean is this far from 0 if each difference could as well have had the other sign."""
    count = len(values)
    if count <= _EXACT_FLIPS:
        flips = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float((_at_least(flips @ values, values)).mean())
    flips = np.random.default_rng(seed + 1).choice(np.array([-1.0, 1.0]), size=(resamples, count))
    return float((_at_least(flips @ values, values).sum() + 1) / (resamples + 1))


def hodges_lehmann(values: Sequence[float]) -> float:
    """The median of all pairwise means: an estimate that single wild blocks do not move."""
    array = np.asarray(values, dtype=np.float64)
    rows, columns = np.triu_indices(len(array))
    return float(np.median((array[rows] + array[columns]) / 2))


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values, in the order given: the chance of any false alarm over all of them stays what was asked."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, ps[i] * (len(ps) - rank)))
        adjusted[i] = running
    return tuple(adjusted)


def detectable(deviation: float, blocks: int, *, alpha: float, power: float) -> float:
    """The smallest true mean difference that `blocks` pairs find with that power, given their standard deviation."""
    if blocks < MIN_BLOCKS:
        return math.inf
    return (t_quantile(1 - alpha / 2, blocks - 1) + t_quantile(power, blocks - 1)) * deviation / math.sqrt(blocks)


def blocks_needed(deviation: float, effect: float, *, alpha: float, power: float, most: int = 100_000) -> int | None:
    """The fewest blocks that find `effect` (a difference of logs); None where `most` do not."""
    low, high = MIN_BLOCKS, most
    if not detectable(deviation, high, alpha=alpha, power=power) <= effect:
        return None
    while low < high:
        middle = (low + high) // 2
        if detectable(deviation, middle, alpha=alpha, power=power) <= effect:
            high = middle
        else:
            low = middle + 1
    return low


def t_quantile(q: float, freedom: int) -> float:
    """Student's t by Fisher and Cornish's expansion (Abramowitz and Stegun 26.7.5): to 1 % from 5 degrees on."""
    z, v = NormalDist().inv_cdf(q), float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: a fair coin for every item that exactly one of the two got right."""
    total = only_first + only_second
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**total))


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _at_least(sums: Floats, values: Floats) -> NDArray[np.bool_]:
    """Whether each sum is as far from 0 as the one observed, rounding forgiven."""
    return np.asarray(np.abs(sums) >= abs(float(values.sum())) * (1 - 1e-12))

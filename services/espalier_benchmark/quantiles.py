"""Percentiles with distribution-free bounds: order statistics and the binomial law, no assumption on the shape.

The q-quantile lies between the order statistics L and U with probability P(L <= B < U), B ~ Binomial(n, q) (David and
Nagaraja, Order Statistics, 7.1). Where no sample is large enough to be U, the percentile is unresolved and has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Percentile:
    """`value` within [`low`, `high`] at the confidence asked for, or all None: too few samples (`n`) to say."""

    q: float
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """As in p99.9."""
        return f"p{self.q * 100:g}"


def percentiles(
    values: Sequence[float],
    *,
    qs: Sequence[float] = PERCENTILES,
    censored: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[Percentile, ...]:
    """Of `values` and of `censored` more that were longer than anybody waited."""
    ordered = sorted(values)
    return tuple(_percentile(ordered, q, n=len(ordered) + censored, confidence=confidence) for q in qs)


def _percentile(ordered: Sequence[float], q: float, *, n: int, confidence: float) -> Percentile:
    low, high = ranks(n, q, confidence)
    rank = max(1, math.ceil(n * q - 1e-9))
    if low < 1 or high > len(ordered):
        return Percentile(q, n)
    return Percentile(q, n, value=ordered[rank - 1], low=ordered[low - 1], high=ordered[high - 1])


@lru_cache(maxsize=256)
def ranks(n: int, q: float, confidence: float) -> tuple[int, int]:
    """The ranks, from 1, of the two order statistics that bracket the quantile; 0 or n + 1 where there is none."""
    if n == 0:
        return 0, 1
    tail = (1 - confidence) / 2
    below, low, high = 0.0, 0, n + 1
    spread = 12 * math.sqrt(n * q * (1 - q)) + 12
    for k in range(max(0, int(n * q - spread)), min(n, int(n * q + spread)) + 1):
        below += math.exp(_log_binomial(n, k, q))  # P(B <= k)
        if below <= tail:
            low = k + 1
        if below >= 1 - tail:
            high = k + 1
            break
    return low, high


def samples_needed(q: float, *, confidence: float = CONFIDENCE) -> int:
    """The fewest samples that resolve the percentile on both sides."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(q, 1 - q)))


def _log_binomial(n: int, k: int, q: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(q) + (n - k) * math.log1p(-q)

"""From items to one figure with its 95 % interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from espalier_benchmark.statistics import t_quantile

_Z = 1.959963984540054
_MIN = 2


def share(right: float, items: int) -> tuple[float, float]:
    """Wilson's interval for a share (Wilson 1927)."""
    if not items:
        return 0.0, 1.0
    p, z2 = right / items, _Z**2
    middle = (p + z2 / (2 * items)) / (1 + z2 / items)
    half = _Z * math.sqrt(p * (1 - p) / items + z2 / (4 * items**2)) / (1 + z2 / items)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> tuple[float, float, float] | None:
    """(mean, low, high) by Student's t; no interval but the mean itself for one value. None for no value."""
    if not values:
        return None
    middle = sum(values) / len(values)
    if len(values) < _MIN:
        return middle, middle, middle
    spread = math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = _quantile(len(values) - 1) * spread
    return middle, middle - half, middle + half


def perplexity(items: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """exp of the mean negative log-probability per token over all texts, (value, tokens) each; the interval takes texts
    as the unit (a ratio estimator, linearised), since tokens of a text depend on each other. None for no token.
    """
    tokens = sum(count for _, count in items)
    if not tokens:
        return None
    ratio = sum(value * count for value, count in items) / tokens
    if len(items) < _MIN:
        return math.exp(ratio), math.exp(ratio), math.exp(ratio)
    residuals = [count * (value - ratio) for value, count in items]
    spread = math.sqrt(len(items) / (len(items) - 1) * sum(r * r for r in residuals)) / tokens
    half = _quantile(len(items) - 1) * spread
    return math.exp(ratio), math.exp(ratio - half), math.exp(ratio + half)


def _quantile(freedom: int) -> float:
    return {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}.get(freedom) or t_quantile(0.975, freedom)

"""Two servers compared on the same items at the same moments of interleaved blocks: a difference, its interval, a
verdict. Pure.

Each block runs both targets, the first one alternating (A B, B A, …), so that drift and order cancel. The block is the
unit: requests of one run wait for each other and are no independent samples. Differences are of logarithms, so Δ is a
ratio: +0.05 is 5 % more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from espalier_benchmark.measure import summarise, token_gaps
from espalier_benchmark.records import Record
from espalier_benchmark.statistics import (
    MIN_BLOCKS,
    Estimate,
    blocks_needed,
    detectable,
    hodges_lehmann,
    holm,
    mcnemar_p,
    paired_mean,
    t_quantile,
)
from espalier_kit.errors import Misconfigured, Permanent

MOST_BLOCKS = 500
"""So many `load.blocks` allows."""
Verdict = Literal["Improved", "Passed", "Regressed", "Inconclusive"]
Pairs = Sequence[tuple[float, float]]
"""(baseline, candidate) of each block."""
Answers = Sequence[tuple[bool, bool]]
"""(baseline right, candidate right) of each item."""
ANSWERED = "answered"
"""The share of requests that were answered at all: right is answered here."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`margin`: how much worse is still good enough (0.03 is 3 %); `alpha`: false alarms over all metrics together."""

    margin: float = 0.0
    alpha: float = 0.05
    power: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `Misconfigured`."""
        if not (0 <= self.margin < 1 and 0 < self.alpha < 0.5 and 0.5 <= self.power < 1):
            raise Misconfigured("margin lies in [0, 1), alpha in (0, 0.5), power in [0.5, 1)", reason="BadComparison")


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of one block and one target. `read` gives None where the block has no such figure."""

    name: str
    is_higher_better: bool
    read: Callable[[Sequence[Record]], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Relative difference of the candidate to the baseline. `low` to `high` holds it at 1 - alpha; `p` is after Holm,
    over all tests of the comparison.

    `min_detectable` is the smallest true difference that as many blocks with this spread find with the power asked for.
    """

    metric: str
    is_higher_better: bool
    blocks: int
    margin: float
    verdict: Verdict
    why: str
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    robust_delta: float | None = None
    """The same by Hodges and Lehmann's estimator, which single wild blocks do not move."""
    p: float = 1.0
    min_detectable: float | None = None


def mean_latency(name: str, read: Callable[[Record], float | None]) -> Metric:
    """The mean over a block's answered requests."""

    def figure(records: Sequence[Record]) -> float | None:
        return _mean([value for r in records if r.is_ok and (value := read(r)) is not None])

    return Metric(name, False, figure)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        mean_latency("ttft", lambda record: record.response_ttft_s),
        mean_latency("e2e", lambda record: record.response_s),
        mean_latency("tpot", lambda record: record.tpot_s),
        Metric("itl", False, lambda records: _mean(token_gaps([r for r in records if r.is_ok]))),
        Metric("throughput", True, lambda records: summarise(records).output_tokens_per_s or None),
    )
}


def turns(blocks: int) -> tuple[tuple[int, int], ...]:
    """(block, target) in the order to run them: 0 is the baseline, 1 the candidate; the order alternates."""
    return tuple((block, target ^ (block % 2)) for block in range(blocks) for target in (0, 1))


def compare(
    records: Sequence[Record], *, baseline: str, candidate: str, metrics: Sequence[str], rules: Rules
) -> Comparison:
    """One difference per metric from the records of an interleaved run. Raises `Permanent` where the pairs are broken.

    Latencies are of the items that both answered, so answers themselves are compared too: a server that is fast because
    it fails is no improvement.
    """
    measured, answers = pairs_of(records, baseline=baseline, candidate=candidate, metrics=metrics)
    differences, shares = weigh(measured, {ANSWERED: answers}, rules)
    return Comparison(differences, shares[ANSWERED])


def pairs_of(
    records: Sequence[Record], *, baseline: str, candidate: str, metrics: Sequence[str]
) -> tuple[list[tuple[Metric, Pairs]], Answers]:
    """What `weigh` takes: each metric's figures per block, and which requests were answered. Raises as `compare`."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise Misconfigured(f"no metric {unknown[0]}; there are {', '.join(METRICS)}", reason="UnknownMetric")
    found = _blocks(records, baseline, candidate)
    measured = [(METRICS[name], _pairs(METRICS[name], found)) for name in metrics]
    return measured, [pair for before, after in found for pair in _answers(before, after)]


def weigh(
    measured: Sequence[tuple[Metric, Pairs]], answers: Mapping[str, Answers], rules: Rules
) -> tuple[tuple[Difference, ...], dict[str, AccuracyDifference]]:
    """All that one comparison decides, together: `alpha` bounds the false alarms of speed and shares as a whole.

    A test that cannot come out at `alpha`, whatever the sides are (too few blocks; too few items on which they differ),
    is no possible alarm: it takes no part in Holm's correction and keeps its own p, above `alpha` (Tarone 1990).
    Raises `Permanent` (NothingPaired) for answers without an item.
    """
    logs = [[math.log(after / before) for before, after in pairs] for _, pairs in measured]
    means = [
        paired_mean(values, alpha=rules.alpha, seed=rules.seed) if len(values) >= MIN_BLOCKS else None
        for values in logs
    ]
    shares = [_share(pairs, rules.alpha) for pairs in answers.values()]
    could = [each is not None for each in means] + [_can_differ(pairs, rules.alpha) for pairs in answers.values()]
    ps = _adjusted([1.0 if each is None else each.p for each in (*means, *shares)], could)
    differences = tuple(
        _difference(metric, values, mean, p, rules)
        for (metric, _), values, mean, p in zip(measured, logs, means, ps[: len(means)], strict=True)
    )
    judged = zip(answers.items(), shares, ps[len(means) :], strict=True)
    return differences, {name: _accuracy(len(pairs), share, p, rules) for (name, pairs), share, p in judged}


@dataclass(frozen=True, slots=True)
class AccuracyDifference:
    """Candidate's share of right answers less the baseline's, over the same items; `p` as in `Difference`."""

    items: int
    delta: float
    low: float
    high: float
    p: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """All metrics of a load, and `answered`: the share of requests that were answered at all."""

    differences: tuple[Difference, ...]
    answered: AccuracyDifference

    @property
    def verdict(self) -> Verdict:
        """The worst of all: a gate passes only if nothing stands in its way. Answers count only where fewer came."""
        found = [each.verdict for each in self.differences]
        if self.answered.verdict == "Regressed":
            return "Regressed"
        order: tuple[Verdict, ...] = ("Regressed", "Inconclusive", "Passed", "Improved")
        return next((verdict for verdict in order if verdict in found), "Inconclusive")

    @property
    def is_passing(self) -> bool:
        """Whether a gate lets the candidate through."""
        return self.verdict in ("Improved", "Passed")


def _share(pairs: Answers, alpha: float) -> Estimate:
    """Exact McNemar test, interval of Agresti and Min (2005)."""
    if not pairs:
        raise Permanent("no item was answered by both targets", reason="NothingPaired")
    lost, won = _discordant(pairs)
    n, b, c = len(pairs) + 2.0, lost + 0.5, won + 0.5
    middle = (c - b) / n
    spread = t_quantile(1 - alpha / 2, 10**6) * math.sqrt(max(0.0, b + c - (c - b) ** 2 / n)) / n
    return Estimate((won - lost) / len(pairs), middle - spread, middle + spread, mcnemar_p(lost, won))


def _can_differ(pairs: Answers, alpha: float) -> bool:
    """Whether all items on which the sides differ, were they all of one kind, would make a difference at `alpha`."""
    return mcnemar_p(0, sum(_discordant(pairs))) <= alpha


def _discordant(pairs: Answers) -> tuple[int, int]:
    """Items that only the baseline has right, and those that only the candidate has."""
    lost = sum(before and not after for before, after in pairs)
    return lost, sum(after and not before for before, after in pairs)


def _adjusted(ps: Sequence[float], could: Sequence[bool]) -> list[float]:
    """After Holm among those that could be an alarm; the others as they are."""
    family = iter(holm([p for p, is_possible in zip(ps, could, strict=True) if is_possible]))
    return [next(family) if is_possible else p for p, is_possible in zip(ps, could, strict=True)]


def _accuracy(items: int, share: Estimate, p: float, rules: Rules) -> AccuracyDifference:
    verdict, _ = _verdict(-share.high, -share.low, -share.value, p, rules, margin=rules.margin)
    return AccuracyDifference(items, share.value, share.low, share.high, p, verdict)


def _difference(
    metric: Metric, values: Sequence[float], estimate: Estimate | None, p: float, rules: Rules
) -> Difference:
    made = partial(
        Difference,
        metric=metric.name,
        is_higher_better=metric.is_higher_better,
        blocks=len(values),
        margin=rules.margin,
    )
    if estimate is None:
        return made(verdict="Inconclusive", why=f"{len(values)} blocks; at least {MIN_BLOCKS} are needed")
    low, high, value = estimate.low, estimate.high, estimate.value
    worse = (-high, -low, -value) if metric.is_higher_better else (low, high, value)
    # A throughput may fall by the margin, a latency grow by it.
    margin = -math.log1p(-rules.margin) if metric.is_higher_better else math.log1p(rules.margin)
    verdict, why = _verdict(*worse, p, rules, margin=margin)
    deviation = float(np.std(values, ddof=1))
    least = detectable(deviation, len(values), alpha=rules.alpha, power=rules.power)
    if verdict == "Inconclusive":
        why = f"{why}: {_next_run(deviation, margin or abs(value), len(values), rules)}"
    return made(
        delta=math.expm1(value),
        low=math.expm1(low),
        high=math.expm1(high),
        robust_delta=math.expm1(hodges_lehmann(values)),
        p=p,
        min_detectable=math.expm1(least),
        verdict=verdict,
        why=why,
    )


def _next_run(deviation: float, effect: float, blocks: int, rules: Rules) -> str:
    """How many blocks a run with this spread between them needs to find `effect` (of logarithms), in words."""
    needed = blocks_needed(deviation, effect, alpha=rules.alpha, power=rules.power, most=MOST_BLOCKS)
    size = f"{math.expm1(effect):.1%}"
    if needed is None:
        return f"with this spread not even {MOST_BLOCKS} blocks find {size}, so make the blocks longer"
    if needed <= blocks:
        return f"these {blocks} blocks are enough to find {size}, so the true difference is close to that"
    return f"with this spread {needed} blocks find {size}"


def _verdict(low: float, high: float, value: float, p: float, rules: Rules, *, margin: float) -> tuple[Verdict, str]:
    """Positive is worse. "Different" needs the interval and the adjusted test; "good enough" the interval alone."""
    is_different = p <= rules.alpha
    if high < 0 and is_different:
        return "Improved", "the whole interval is better than the baseline"
    if high <= margin and rules.margin > 0:
        return "Passed", "the whole interval is within the margin"
    if low > 0 and value > margin and is_different:
        return "Regressed", "the whole interval is worse than the baseline, its middle by more than the margin"
    return "Inconclusive", "the interval allows both better and worse than asked for"


def _blocks(
    records: Sequence[Record], baseline: str, candidate: str
) -> list[tuple[Sequence[Record], Sequence[Record]]]:
    found: dict[int, dict[str, list[Record]]] = defaultdict(lambda: {baseline: [], candidate: []})
    for record in records:
        if record.target in (baseline, candidate) and record.block >= 0:
            found[record.block][record.target].append(record)
    blocks: list[tuple[Sequence[Record], Sequence[Record]]] = []
    for number, sides in sorted(found.items()):
        asked = [sorted(record.index for record in side) for side in (sides[baseline], sides[candidate])]
        if asked[0] != asked[1]:
            raise Permanent(f"block {number}: the targets were not asked the same items", reason="NotPaired")
        blocks.append((sides[baseline], sides[candidate]))
    if not blocks:
        raise Permanent(f"no records of {baseline} and {candidate}", reason="NothingPaired")
    return blocks


def _pairs(metric: Metric, blocks: Sequence[tuple[Sequence[Record], Sequence[Record]]]) -> Pairs:
    """Each block's two figures, over the items that both targets answered."""
    found = []
    for before, after in blocks:
        both = {r.index for r in before if r.is_ok} & {r.index for r in after if r.is_ok}
        figures = [metric.read([r for r in side if r.index in both]) for side in (before, after)]
        if figures[0] and figures[1]:
            found.append((figures[0], figures[1]))
    return found


def _answers(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[bool, bool]]:
    by_item = {record.index: record.is_ok for record in after}
    return [(record.is_ok, by_item[record.index]) for record in before]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

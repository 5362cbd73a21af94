"""Comparison: planted differences are found, equal servers are called equal, and the verdict follows the interval."""

from __future__ import annotations

import math
import random
import statistics as reference
from collections.abc import Iterator

import pytest

from espalier_benchmark.compare import (
    METRICS,
    AccuracyDifference,
    Answers,
    Difference,
    Pairs,
    Rules,
    compare,
    turns,
    weigh,
)
from espalier_benchmark.records import Record
from espalier_benchmark.statistics import (
    blocks_needed,
    detectable,
    hodges_lehmann,
    holm,
    mcnemar_p,
    paired_mean,
    t_quantile,
)
from espalier_kit.errors import Misconfigured, Permanent

BLOCKS = 24


def simulated(*, seed: int, slower: float = 1.0, blocks: int = BLOCKS, items: int = 12) -> Iterator[Record]:
    """Interleaved runs on a machine that drifts by 20 %; items differ by 40 %, requests by 10 %, turns by 3 %."""
    chance = random.Random(seed)
    for block in range(blocks):
        drift = chance.lognormvariate(0, 0.2)
        lengths = [chance.lognormvariate(0, 0.4) for _ in range(items)]
        for target, factor in (("a", 1.0), ("b", slower)):
            turn = drift * factor * chance.lognormvariate(0, 0.03)
            for index, length in enumerate(lengths):
                took = turn * length * chance.lognormvariate(0, 0.1)
                yield request(index, target, block, took)


def request(index: int, target: str, block: int, took: float, *, error: str = "") -> Record:
    first, last = index + took / 4, index + took
    return Record(
        index=index,
        target=target,
        block=block,
        intended_s=index,
        sent_s=index,
        first_s=first,
        ended_s=last,
        chunks=((first, 1.0), (last, 9.0)),
        output_tokens=10.0,
        error=error,
    )


def e2e(records: Iterator[Record], rules: Rules) -> Difference:
    (found,) = compare(list(records), baseline="a", candidate="b", metrics=["e2e"], rules=rules).differences
    return found


def block_pairs(chance: random.Random, noise: str) -> Pairs:
    def one() -> float:
        return {
            "normal": lambda: chance.gauss(0, 0.05),
            "heavy tail": lambda: 0.02 * chance.gauss(0, 1) / math.sqrt(chance.gammavariate(1.5, 1 / 1.5)),
            "bursts": lambda: chance.gauss(0, 0.02) + (0.3 if chance.random() < 0.1 else 0.0),
        }[noise]()

    return [(math.exp(drift + one()), math.exp(drift + one())) for drift in (chance.gauss(0, 0.3) for _ in range(20))]


def alone(pairs: Pairs, rules: Rules, *, metric: str = "e2e") -> Difference:
    (found,), _ = weigh([(METRICS[metric], pairs)], {}, rules)
    return found


def share(pairs: Answers, rules: Rules) -> AccuracyDifference:
    _, found = weigh([], {"one": pairs}, rules)
    return found["one"]


def answers(*, right: int, lost: int, won: int) -> Answers:
    return [(True, True)] * right + [(True, False)] * lost + [(False, True)] * won


def random_answers(chance: random.Random, *, falls: float = 0.0) -> Answers:
    """100 items that both sides have right with the same probability, the candidate less often by `falls`."""
    return [(chance.random() < 0.6, chance.random() < 0.6 - falls) for _ in range(100)]


@pytest.mark.parametrize("noise", ["normal", "heavy tail", "bursts"])
def test_of_200_identical_pairs_at_most_17_are_called_different(noise: str) -> None:
    """At 5 % false alarms 10 are expected; more than 17 come once in a hundred times."""
    chance = random.Random(2026)
    called = [
        alone(block_pairs(chance, noise), Rules(seed=run)).verdict for run in range(200)
    ]
    assert set(called) <= {"Inconclusive", "Improved", "Regressed"}
    assert sum(verdict != "Inconclusive" for verdict in called) <= 17


def test_identical_servers_are_rarely_called_different_from_their_records() -> None:
    called = [e2e(simulated(seed=run), Rules(seed=run)).verdict for run in range(60)]
    assert sum(verdict in ("Improved", "Regressed") for verdict in called) <= 8


def test_a_server_5_percent_slower_is_found_regressed() -> None:
    found = [e2e(simulated(seed=run, slower=1.05), Rules(seed=run)) for run in range(60)]
    assert sum(each.verdict == "Regressed" for each in found) / 60 >= 0.8
    assert reference.mean(each.delta or 0 for each in found) == pytest.approx(0.05, abs=0.005)
    held = sum((each.low or 0) <= 0.05 <= (each.high or 0) for each in found)
    assert held >= 53, "a 95 % interval holds the truth"


def test_drift_would_hide_it_from_an_unpaired_comparison() -> None:
    """The same runs, halves compared as two samples: the machine's drift is larger than the difference."""
    hidden = 0
    for run in range(20):
        times: dict[str, list[float]] = {"a": [], "b": []}
        for record in simulated(seed=run, slower=1.05):
            times[record.target].append(record.response_s)
        spread = math.hypot(*(reference.stdev(each) / math.sqrt(BLOCKS) for each in times.values()))
        hidden += abs(reference.mean(times["b"]) - reference.mean(times["a"])) < 2 * spread
    assert hidden >= 15


def test_the_detectable_difference_is_the_one_that_is_detected_four_times_in_five() -> None:
    least = [e2e(simulated(seed=run), Rules(seed=run)).min_detectable or 0 for run in range(20)]
    planted = 1 + reference.mean(least)
    found = [e2e(simulated(seed=1000 + run, slower=planted), Rules(seed=run)).verdict for run in range(60)]
    assert 0.65 <= found.count("Regressed") / 60 <= 0.95


@pytest.mark.parametrize(
    ("factor", "margin", "verdict"),
    [
        (1.00, 0.00, "Inconclusive"),
        (1.00, 0.05, "Passed"),
        (1.03, 0.10, "Passed"),
        (1.20, 0.05, "Regressed"),
        (1.20, 0.00, "Regressed"),
        (0.80, 0.05, "Improved"),
        (0.80, 0.00, "Improved"),
    ],
)
@pytest.mark.parametrize("metric", ["e2e", "throughput"])
def test_the_verdict_follows_interval_and_margin(metric: str, factor: float, margin: float, verdict: str) -> None:
    chance = random.Random(4)
    worse = factor if metric == "e2e" else 1 / factor
    pairs = [(1.0, worse * math.exp(chance.gauss(0, 0.02))) for _ in range(30)]
    found = alone(pairs, Rules(margin=margin), metric=metric)
    assert found.verdict == verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low < worse - 1 + 0.02
    assert found.robust_delta == pytest.approx(found.delta, abs=0.01)


def test_too_few_blocks_are_inconclusive_and_say_so() -> None:
    found = alone([(1.0, 2.0)] * 5, Rules())
    assert (found.verdict, found.delta) == ("Inconclusive", None)
    assert found.why == "5 blocks; at least 6 are needed"


def test_several_metrics_share_their_false_alarms() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


EQUAL = answers(right=40, lost=5, won=5)
"""60 items on which equal sides differ ten times."""


@pytest.mark.parametrize(
    ("lost", "verdict"), [(15, "Inconclusive"), (24, "Regressed")], ids=["beyond chance alone", "beyond chance"]
)
def test_a_pack_beside_others_and_speed_needs_more_than_one_chance_in_twenty(lost: int, verdict: str) -> None:
    one = answers(right=60, lost=lost, won=5 if lost < 20 else 3)
    raw = share(one, Rules()).p
    chance = random.Random(1)
    speed, shares = weigh(
        [(METRICS["e2e"], block_pairs(chance, "normal"))], {"answered": [(True, True)] * 60, "one": one, "two": EQUAL},
        Rules(),
    )  # fmt: skip
    assert raw <= 0.05
    assert (speed[0].verdict, shares["one"].verdict) == ("Inconclusive", verdict)
    assert shares["one"].p == pytest.approx(3 * raw), "speed and two packs; that all was answered is no test"


def test_what_could_not_come_out_takes_nothing_from_the_others() -> None:
    beside = {"answered": [(True, True)] * 60, "few": answers(right=20, lost=0, won=5)}
    one = answers(right=60, lost=15, won=5)
    _, shares = weigh([(METRICS["e2e"], [(1.0, 2.0)] * 5)], {"one": one, **beside}, Rules())
    assert (shares["one"].p, shares["one"].verdict) == (share(one, Rules()).p, "Regressed")
    assert (shares["few"].p, shares["few"].verdict) == (0.0625, "Inconclusive")


def test_of_400_comparisons_of_equal_sides_at_most_30_have_any_alarm() -> None:
    """Two metrics, answers and ten packs: at 5 % over all 20 are expected; more than 30 come once in a hundred."""
    chance, alarms, single = random.Random(11), 0, 0
    for run in range(400):
        packs = {name: random_answers(chance) for name in ("answered", *(f"pack {n}" for n in range(10)))}
        speed = [(METRICS[name], block_pairs(chance, "normal")) for name in ("e2e", "ttft")]
        differences, shares = weigh(speed, packs, Rules(seed=run))
        verdicts = {each.verdict for each in (*differences, *shares.values())}
        alarms += verdicts != {"Inconclusive"}
        single += any(share(pairs, Rules()).verdict != "Inconclusive" for pairs in packs.values())
    assert alarms <= 30
    assert single >= 60, "each test by itself: more than one comparison in seven alarms"


def test_a_worse_pack_is_found_among_ten_equal_ones() -> None:
    chance = random.Random(12)
    found = []
    for run in range(50):
        packs = {"worse": random_answers(chance, falls=0.35)} | {f"pack {n}": random_answers(chance) for n in range(10)}
        _, shares = weigh([], packs, Rules(seed=run))
        found.append(shares["worse"].verdict)
    assert found.count("Regressed") >= 45


def test_a_server_that_is_fast_because_it_fails_has_not_improved() -> None:
    records = []
    for block in range(12):
        for index in range(10):
            records.append(request(index, "a", block, 1.0))
            records.append(request(index, "b", block, 0.5, error="http-500" if index % 3 == 0 else ""))
    found = compare(records, baseline="a", candidate="b", metrics=["e2e"], rules=Rules())
    assert found.differences[0].verdict == "Improved"
    assert (found.answered.verdict, found.verdict, found.is_passing) == ("Regressed", "Regressed", False)
    assert found.answered.delta == pytest.approx(-0.4)


def test_all_metrics_of_a_slower_server() -> None:
    records = list(simulated(seed=3, slower=1.3))
    found = compare(records, baseline="a", candidate="b", metrics=list(METRICS), rules=Rules(margin=0.03))
    assert {each.metric: each.verdict for each in found.differences}["itl"] == "Regressed"
    assert found.verdict == "Regressed"
    same = [*records, *simulated(seed=3)]
    with pytest.raises(Permanent, match="not asked the same items"):
        compare(same[:-1], baseline="a", candidate="b", metrics=["e2e"], rules=Rules())


@pytest.mark.parametrize(
    ("metrics", "baseline", "says"), [(["speed"], "a", "no metric speed"), (["e2e"], "c", "not asked the same items")]
)
def test_what_cannot_be_compared_is_refused(metrics: list[str], baseline: str, says: str) -> None:
    with pytest.raises(Permanent, match=says):
        compare(list(simulated(seed=1, blocks=2)), baseline=baseline, candidate="b", metrics=metrics, rules=Rules())
    with pytest.raises(Misconfigured, match="margin lies"):
        Rules(margin=1.5)


def test_blocks_are_interleaved_so_that_order_cancels() -> None:
    assert turns(4) == ((0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1), (3, 1), (3, 0))


@pytest.mark.parametrize(
    ("q", "freedom", "table"), [(0.975, 5, 2.571), (0.975, 10, 2.228), (0.8, 10, 0.879), (0.975, 30, 2.042)]
)
def test_students_quantiles_are_those_of_the_tables(q: float, freedom: int, table: float) -> None:
    assert t_quantile(q, freedom) == pytest.approx(table, rel=0.01)


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (1, 9, 0.0215), (6, 6, 1.0)]
)
def test_mcnemars_test_is_exact(lost: int, won: int, p: float) -> None:
    assert mcnemar_p(lost, won) == pytest.approx(p, abs=0.0001)


def test_accuracy_is_compared_item_by_item() -> None:
    worse = share(answers(right=80, lost=18, won=2), Rules())
    assert worse.verdict == "Regressed"
    assert worse.delta == pytest.approx(-0.16)
    assert worse.low < -0.16 < worse.high < 0
    assert share([(True, True)] * 500, Rules(margin=0.05)).verdict == "Passed"
    with pytest.raises(Permanent, match="no item"):
        share([], Rules())


def test_estimates_are_the_same_for_the_same_seed_and_robust_ones_ignore_a_wild_block() -> None:
    values = [0.01 * i for i in range(10)]
    assert paired_mean(values, alpha=0.05, seed=3) == paired_mean(values, alpha=0.05, seed=3)
    assert hodges_lehmann(values) == pytest.approx(0.045)
    assert hodges_lehmann([*values, 50.0]) < 0.1


@pytest.mark.parametrize(
    ("spread", "shift", "margin", "says"),
    [
        (0.05, 0.0, 0.02, "with this spread 57 blocks find 2.0%"),
        (0.3, 0.0, 0.01, "not even 500 blocks find 1.0%, so make the blocks longer"),
        (0.02, 0.045, 0.05, "these 12 blocks are enough to find 5.0%, so the true difference is close to that"),
    ],
)
def test_an_open_verdict_says_how_many_blocks_would_close_it(
    spread: float, shift: float, margin: float, says: str
) -> None:
    logs = [shift + spread * (1 if n % 2 else -1) for n in range(12)]
    pairs = [(1.0, math.exp(value)) for value in logs]
    found = alone(pairs, Rules(margin=margin))
    assert found.verdict == "Inconclusive"
    assert says in found.why


def test_the_number_of_blocks_for_an_effect_is_the_smallest_that_detects_it() -> None:
    needed = blocks_needed(0.05, 0.03, alpha=0.05, power=0.8)
    assert needed is not None
    assert detectable(0.05, needed, alpha=0.05, power=0.8) <= 0.03 < detectable(0.05, needed - 1, alpha=0.05, power=0.8)
    assert blocks_needed(1.0, 1e-9, alpha=0.05, power=0.8) is None
    assert math.isinf(detectable(0.05, 5, alpha=0.05, power=0.8))

"""Two runs that were not interleaved: batches of the same requests, and what may not be compared."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from espalier_benchmark.compare import Rules
from espalier_benchmark.questions import ItemRecord
from espalier_benchmark.records import Record
from espalier_benchmark.verdict import Side, as_json, as_page, batched, decide
from espalier_kit.errors import EspalierError

RULES = Rules(margin=0.05)


def run(count: int = 240, *, slower: float = 1.0, noise: int = 0, failing: int = 0) -> Side:
    """The same work on two servers: request N takes about the same on both."""
    records = []
    for index in range(count):
        work, luck = random.Random(index), random.Random(f"{noise}/{index}")
        took = slower * work.lognormvariate(0, 0.3) * luck.lognormvariate(0, 0.05)
        records.append(
            Record(
                index=index, target="t", intended_s=index, sent_s=index, ended_s=index + took, first_s=index + took / 2,
                chunks=((index + took / 2, 1.0), (index + took, 1.0)), output_tokens=2,
                error="timeout" if index < failing else "",
            )
        )  # fmt: skip
    items = {"humaneval": [ItemRecord(id=str(i), score=float(i >= failing)) for i in range(60)]}
    return Side("job", "t", tuple(records), items)


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        (run(noise=1), "Passed"),
        (run(noise=1, slower=1.15), "Regressed"),
        (run(noise=1, slower=0.8), "Improved"),
        (run(noise=1, slower=0.8, failing=40), "Regressed"),
    ],
    ids=["same", "slower", "faster", "fast because it fails"],
)
def test_batches_of_the_same_requests_decide(candidate: Side, verdict: str) -> None:
    found = decide(run(), candidate, metrics=["e2e"], rules=RULES)
    assert (found.verdict, found.is_interleaved) == (verdict, False)
    assert "drift may pass for a difference" in found.message


def test_accuracy_is_compared_item_by_item() -> None:
    found = decide(run(), run(failing=20), metrics=["accuracy"], rules=RULES)
    (difference,) = found.differences
    assert (found.verdict, difference.metric, difference.samples) == ("Regressed", "accuracy:humaneval", 60)
    assert difference.delta == pytest.approx(-20 / 60)


def scored(**wrong: int) -> Side:
    """The same requests, and packs of 60 items of which so many, the first ones, have no point."""
    items = {pack: [ItemRecord(id=str(i), score=float(i >= n)) for i in range(60)] for pack, n in wrong.items()}
    return replace(run(noise=1), items=items)


def test_speed_and_packs_are_weighed_together() -> None:
    """Six items lost and none won have p = 0.031: an alarm alone, none as one of three."""
    before = scored(one=0, two=0)
    both = decide(before, scored(one=6, two=6), metrics=["e2e", "accuracy"], rules=Rules())
    assert both.verdict == "Inconclusive"
    assert [each.p for each in both.differences] == pytest.approx([1.0, 3 * 2 / 2**6, 3 * 2 / 2**6])
    alone = decide(scored(one=0), scored(one=6), metrics=["accuracy"], rules=Rules())
    assert (alone.verdict, alone.differences[0].p) == ("Regressed", pytest.approx(2 / 2**6))
    assert decide(before, scored(one=6, two=20), metrics=["e2e", "accuracy"], rules=Rules()).metric == "accuracy:two"


def test_evaluators_are_named_as_what_no_comparison_decides_on() -> None:
    judged = replace(run(), items={"judge": [ItemRecord(id=str(i), score=1.0) for i in range(60)]})
    with pytest.raises(EspalierError, match="no pack in common; a comparison decides on packs only, not on judge;"):
        decide(judged, judged, metrics=["accuracy"], rules=RULES)
    both = decide(run(), replace(run(), items={**run().items, **judged.items}), metrics=["accuracy"], rules=RULES)
    assert [each.metric for each in both.differences] == ["accuracy:humaneval"]
    assert both.message.endswith("not on judge")


def test_a_pack_without_a_score_on_both_sides_is_named() -> None:
    abstained = replace(run(), items={"humaneval": [ItemRecord(id="1", score=None)]})
    with pytest.raises(EspalierError, match="no item of humaneval has a score in both"):
        decide(run(), abstained, metrics=["accuracy"], rules=RULES)


def test_batches_hold_the_same_requests_in_their_order() -> None:
    made = batched(run(24).records, run(24, noise=1).records, batches=6)
    blocks = {(r.target, r.block): [x.index for x in made if (x.target, x.block) == (r.target, r.block)] for r in made}
    assert {len(indexes) for indexes in blocks.values()} == {4}
    assert all(blocks["baseline", block] == blocks["candidate", block] for block in range(6))


@pytest.mark.parametrize(
    ("candidate", "metrics", "reason"),
    [
        (run(120), ["e2e"], "NotPaired"),
        (replace(run(), records=()), ["e2e"], "NothingPaired"),
        (replace(run(), items={}), ["accuracy"], "NothingPaired"),
        (run(), ["speed"], "UnknownMetric"),
    ],
)
def test_what_cannot_be_paired_is_refused(candidate: Side, metrics: list[str], reason: str) -> None:
    with pytest.raises(EspalierError) as refused:
        decide(run(), candidate, metrics=metrics, rules=RULES)
    assert refused.value.reason == reason


def test_the_page_is_escaped() -> None:
    found = decide(run(), run(noise=1), metrics=["e2e"], rules=RULES)
    page = as_page(found, "<script>", "new").decode()
    assert "<script>" not in page
    assert b'"verdict": "Passed"' in as_json(found)

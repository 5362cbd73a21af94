"""Two runs, one after the other or interleaved: is the candidate better, as good, worse? Pure.

Runs that were not interleaved are cut into batches of the same requests in the order they were due (batch means: Law
and Kelton, Simulation Modeling and Analysis, 9.5.3); the batch is then the unit. What drifted between the two runs
looks like a difference there, so such a comparison says `is_interleaved` False.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from espalier_api.benchmarkfigures import DifferenceFigures, Verdict
from espalier_api.benchmarkload import Evaluator
from espalier_api.benchmarktasks import BenchmarkSettings
from espalier_benchmark import plan
from espalier_benchmark.compare import (
    ANSWERED,
    METRICS,
    AccuracyDifference,
    Answers,
    Difference,
    Metric,
    Pairs,
    Rules,
    pairs_of,
    weigh,
)
from espalier_benchmark.dag import chunk_of
from espalier_benchmark.measure import Window
from espalier_benchmark.paired import WARM_UP_BLOCK
from espalier_benchmark.questions import ItemRecord, from_lines
from espalier_benchmark.records import Record, read
from espalier_kit.errors import Misconfigured, Permanent

BATCHES = 12
ACCURACY = "accuracy"
EVALUATORS = frozenset(get_args(Evaluator))
"""No comparison decides on them: their scores are no right or wrong, and a judge has seen both sides already."""
_BASELINE, _CANDIDATE = "baseline", "candidate"
_ORDER: tuple[Verdict, ...] = ("Regressed", "Inconclusive", "Passed", "Improved")


@dataclass(frozen=True, slots=True)
class Side:
    """One target's run: its records that count, its graded items by pack."""

    job: str
    target: str
    records: Sequence[Record]
    items: Mapping[str, Sequence[ItemRecord]]
    is_paired: bool = False
    """Whether the run had two targets in turns."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The worst verdict of all metrics; `metric` is whose it is and `delta` its relative difference."""

    verdict: Verdict
    metric: str
    delta: float | None
    differences: tuple[DifferenceFigures, ...]
    is_interleaved: bool
    message: str


def decide(
    baseline: Side, candidate: Side, *, metrics: Sequence[str], rules: Rules, is_one_run: bool = False
) -> Decision:
    """Raises `Misconfigured` (UnknownMetric) or `Permanent` (NotPaired, NothingPaired) with a sentence."""
    known = (*METRICS, ACCURACY)
    if unknown := [name for name in metrics if name not in known]:
        raise Misconfigured(f"no metric {unknown[0]}; there are {', '.join(known)}", reason="UnknownMetric")
    is_interleaved = is_one_run and baseline.is_paired
    measured: Sequence[tuple[Metric, Pairs]] = ()
    answers: dict[str, Answers] = {}
    if speed := [name for name in metrics if name != ACCURACY]:
        measured, answers[ANSWERED] = _speed(baseline, candidate, metrics=speed, is_interleaved=is_interleaved)
    if ACCURACY in metrics:
        answers |= _packs(baseline, candidate)
    found = _figures(measured, answers, rules)
    worst = min(found, key=lambda each: _ORDER.index(each.verdict))
    drift = "" if is_interleaved else "; the two ran one after the other, so drift may pass for a difference"
    left_out = _left_out(baseline, candidate) if ACCURACY in metrics else ""
    return Decision(
        worst.verdict, worst.metric, worst.delta, found, is_interleaved, f"{worst.metric}: {worst.why}{drift}{left_out}"
    )


def side(settings: BenchmarkSettings, raw: Mapping[str, bytes], *, job: str, target: str) -> Side:
    """A target's run from the raw files of its report, by task key. Raises `Misconfigured` for a target it has not."""
    names = [each.name for each in settings.targets]
    if target not in names:
        raise Misconfigured(f"{job} has no target {target!r}; it has {', '.join(names)}", reason="SourceNotFound")
    number = names.index(target)
    records: list[Record] = []
    items: dict[str, list[ItemRecord]] = {}
    for key, content in sorted(raw.items()):
        if key.startswith("records-"):
            lines = content.decode().splitlines(keepends=True)
            records += [record for record in read(lines) if record.target == target]
        elif key.startswith(f"accuracy/{number}/"):
            _, pack, _ = chunk_of(key)
            items.setdefault(pack, []).extend(from_lines(content))
    window = plan.window(settings.load) if settings.load and len(names) == 1 else Window()
    kept = tuple(record for record in window.cut(records) if record.block != WARM_UP_BLOCK)
    return Side(job, target, kept, items, is_paired=len(names) == 2)


def batched(baseline: Sequence[Record], candidate: Sequence[Record], *, batches: int = BATCHES) -> list[Record]:
    """Both runs in the same batches by item, in the order in which they were due. Raises `Permanent` (NotPaired)."""
    sides = [{(r.index, r.block): r for r in side} for side in (baseline, candidate)]
    if set(sides[0]) != set(sides[1]):
        only = len(set(sides[0]) ^ set(sides[1]))
        raise Permanent(
            f"the two runs did not ask the same: {only} requests are in one of them only; use the same load, dataset "
            "and seed in both",
            reason="NotPaired",
        )
    order = sorted(sides[0], key=lambda key: (key[1], sides[0][key].intended_s, key[0]))
    block = {key: position * batches // len(order) for position, key in enumerate(order)}
    return [
        replace(record, target=name, block=block[key], index=number)
        for name, side in ((_BASELINE, sides[0]), (_CANDIDATE, sides[1]))
        for number, key in enumerate(order)
        for record in (side[key],)
    ]


def as_json(decision: Decision) -> bytes:
    """The figures."""
    found: dict[str, Any] = {
        "verdict": decision.verdict,
        "metric": decision.metric,
        "delta": decision.delta,
        "interleaved": decision.is_interleaved,
        "message": decision.message,
        "differences": [each.wire() for each in decision.differences],
    }
    return (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode()


def as_page(decision: Decision, baseline: str, candidate: str) -> bytes:
    """One page, nothing fetched, nothing executed."""
    environment = Environment(
        loader=PackageLoader("espalier_benchmark", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("comparison.html")
    return page.render(decision=decision, baseline=baseline, candidate=candidate).encode()


def _figures(
    measured: Sequence[tuple[Metric, Pairs]], answers: Mapping[str, Answers], rules: Rules
) -> tuple[DifferenceFigures, ...]:
    """Weighed together. That as many requests were answered is no figure of its own; that fewer were is."""
    differences, shares = weigh(measured, answers, rules)
    found = [_figure(each) for each in differences]
    for name, share in shares.items():
        if name != ANSWERED:
            found.append(_of_accuracy(name, share))
        elif share.verdict == "Regressed":
            found.append(_answered(share))
    return tuple(found)


def _speed(
    baseline: Side, candidate: Side, *, metrics: Sequence[str], is_interleaved: bool
) -> tuple[Sequence[tuple[Metric, Pairs]], Answers]:
    if not baseline.records or not candidate.records:
        empty = baseline if not baseline.records else candidate
        raise Permanent(f"{empty.job} has no records of {empty.target}: it ran no load", reason="NothingPaired")
    if is_interleaved:
        records = [*baseline.records, *candidate.records]
        return pairs_of(records, baseline=baseline.target, candidate=candidate.target, metrics=metrics)
    records = batched(baseline.records, candidate.records)
    return pairs_of(records, baseline=_BASELINE, candidate=_CANDIDATE, metrics=metrics)


def _packs(baseline: Side, candidate: Side) -> dict[str, Answers]:
    """The items of each pack that have a score on both sides. Raises `Permanent` (NothingPaired) where none has."""
    common = sorted((set(baseline.items) & set(candidate.items)) - EVALUATORS)
    found: dict[str, Answers] = {}
    for pack in common:
        before, after = ({i.id: i for i in side.items[pack] if i.score is not None} for side in (baseline, candidate))
        if pairs := [(_is_right(before[name]), _is_right(after[name])) for name in before if name in after]:
            found[f"{ACCURACY}:{pack}"] = pairs
    if not found:
        jobs = f"{baseline.job} and {candidate.job}"
        why = f"no item of {', '.join(common)} has a score in both" if common else "they have no pack in common"
        raise Permanent(
            f"the answers of {jobs} cannot be compared: {why}{_left_out(baseline, candidate)}; ask both the same packs",
            reason="NothingPaired",
        )
    return found


def _left_out(baseline: Side, candidate: Side) -> str:
    """What was asked of them beside packs, in words."""
    names = sorted((set(baseline.items) | set(candidate.items)) & EVALUATORS)
    return f"; a comparison decides on packs only, not on {', '.join(names)}" if names else ""


def _is_right(item: ItemRecord) -> bool:
    return item.score is not None and item.score >= 1


def _figure(each: Difference) -> DifferenceFigures:
    return DifferenceFigures(
        metric=each.metric, verdict=each.verdict, why=each.why, samples=each.blocks,
        higher_is_better=each.is_higher_better, delta=each.delta, low=each.low, high=each.high,
        p=each.p if each.delta is not None else None, min_detectable_effect=each.min_detectable,
    )  # fmt: skip


def _of_accuracy(metric: str, each: AccuracyDifference) -> DifferenceFigures:
    whys: Mapping[Verdict, str] = {
        "Improved": "more items are right, beyond chance",
        "Passed": "the whole interval is within the margin",
        "Regressed": "fewer items are right, beyond chance and the margin",
        "Inconclusive": "the interval allows both better and worse than asked for: more items would narrow it",
    }
    return DifferenceFigures(
        metric=metric, verdict=each.verdict, why=whys[each.verdict], samples=each.items, higher_is_better=True,
        delta=each.delta, low=each.low, high=each.high, p=each.p,
    )  # fmt: skip


def _answered(each: AccuracyDifference) -> DifferenceFigures:
    return _of_accuracy("answered", each).model_copy(
        update={"why": "fewer requests were answered: a server that is fast because it fails is no improvement"}
    )

"""From records to the figures that the status shows, in the API's own types. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from espalier_api.benchmarkfigures import (
    AccuracyFigures,
    ErrorCount,
    LatencyFigure,
    PercentileFigure,
    TargetFigures,
    ValidityReason,
)
from espalier_api.benchmarkfigures import (
    Validity as ValidityFigure,
)
from espalier_api.benchmarkload import Price
from espalier_benchmark.budget import cost_of
from espalier_benchmark.evaluators import intervals, judge, lexical
from espalier_benchmark.measure import Latency, Slo, Summary, saturation, stages, summarise
from espalier_benchmark.quantiles import Percentile
from espalier_benchmark.questions import ItemRecord
from espalier_benchmark.records import Record
from espalier_benchmark.validity import Validity


def target_figures(
    name: str, records: Sequence[Record], summary: Summary, *, slo: Slo | None, price: Price | None, is_sweep: bool
) -> TargetFigures:
    """One target's speed. `records` are those in the summary's window."""
    best = saturation(stages(records, slo=slo)) if is_sweep and records else None
    models = sorted({record.model for record in records if record.model})
    return TargetFigures(
        name=name,
        model=", ".join(models)[:253] or None,
        requests=summary.requests,
        succeeded=summary.succeeded,
        errors=tuple(ErrorCount(type=kind, count=count) for kind, count in summary.errors.items()),
        latencies=tuple(_latency(each) for each in summary.latencies),
        requests_per_second=summary.requests_per_s,
        output_tokens_per_second=summary.output_tokens_per_s,
        goodput_per_second=summary.goodput_per_s if slo else None,
        good_share=summary.good / summary.requests if slo and summary.requests else None,
        prompt_tokens=summary.prompt_tokens,
        output_tokens=round(summary.output_tokens),
        saturation_per_second=best.offered_per_s if best else None,
        cost=cost_of(price, prompt_tokens=summary.prompt_tokens, output_tokens=summary.output_tokens)
        if price
        else None,
    )


def accuracy_figures(
    target: str, name: str, records: Sequence[ItemRecord], *, price: Price | None, sandbox: str | None = None
) -> tuple[AccuracyFigures, ...]:
    """A pack's or evaluator's figure; coherence comes with readability. `sandbox` is where answers ran, if they did."""
    scored = [record for record in records if record.score is not None]
    cost = sum(
        cost_of(price, prompt_tokens=r.prompt_tokens, output_tokens=r.output_tokens) for r in records if not r.is_cached
    )
    value, metric = _value(name, scored)
    found = AccuracyFigures(
        target=target,
        name=name,
        metric=metric,
        items=len(scored),
        value=value[0] if value else None,
        low=value[1] if value else None,
        high=value[2] if value else None,
        abstained=len(records) - len(scored),
        kappa=_kappa(records) if name == "judge" else None,
        cost=cost if price else None,
        sandbox=sandbox,
    )
    return (found, _readability(target, records)) if name == "coherence" else (found,)


def validity_figure(validity: Validity) -> ValidityFigure:
    """In the API's type."""
    return ValidityFigure(
        verdict=validity.verdict,
        reasons=tuple(ValidityReason(reason=each.reason, message=each.message) for each in validity.reasons),
    )


def summaries(records: Sequence[Record], targets: Sequence[str], *, slo: Slo | None) -> dict[str, Summary]:
    """Of the records that count, by target."""
    return {name: summarise([r for r in records if r.target == name], slo=slo) for name in targets}


def _value(name: str, scored: Sequence[ItemRecord]) -> tuple[tuple[float, float, float] | None, str]:
    scores = [record.score or 0.0 for record in scored]
    if name == "perplexity":
        return intervals.perplexity([(r.score or 0.0, r.weight) for r in scored]), "perplexity"
    if name == "judge":
        return intervals.mean(scores), "winRate"
    if name in ("coherence", "relevance", "faithfulness"):
        return intervals.mean(scores), "score"
    if not scores:
        return None, "share"
    right = float(sum(score >= 1 for score in scores))
    return (right / len(scores), *intervals.share(right, len(scores))), "share"


def _cost(summary: Summary, price: Price) -> float:
    return cost_of(price, prompt_tokens=summary.prompt_tokens, output_tokens=summary.output_tokens)


def _kappa(records: Sequence[ItemRecord]) -> float | None:
    pairs: list[tuple[judge.Side, judge.Side]] = [
        (_side(record.verdicts[0]), _side(record.verdicts[1])) for record in records if len(record.verdicts) == 2
    ]
    return judge.kappa(pairs)


def _side(text: str) -> judge.Side:
    sides: dict[str, judge.Side] = {"first": "first", "second": "second", "tie": "tie"}
    return sides.get(text, "")


def _readability(target: str, records: Sequence[ItemRecord]) -> AccuracyFigures:
    found = [ease for record in records if (ease := lexical.readability(record.text)) is not None]
    value = intervals.mean(found)
    return AccuracyFigures(
        target=target, name="readability", metric="score", items=len(found), abstained=len(records) - len(found),
        value=value[0] if value else None, low=value[1] if value else None, high=value[2] if value else None,
    )  # fmt: skip


def _latency(latency: Latency) -> LatencyFigure:
    return LatencyFigure(
        name=latency.name,
        clock="service" if latency.clock == "service" else "response",
        samples=latency.count,
        mean=_ms(latency.mean_s),
        percentiles=tuple(_percentile(each) for each in latency.percentiles),
    )


def _percentile(found: Percentile) -> PercentileFigure:
    return PercentileFigure(name=found.name, value=_ms(found.value), low=_ms(found.low), high=_ms(found.high))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)

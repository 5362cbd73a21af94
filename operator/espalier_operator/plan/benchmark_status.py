"""What only a BenchmarkJob's status says: figures, validity, gate; or the results of a workflow."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from espalier_api.benchmarkfigures import TargetFigures
from espalier_api.benchmarkjob import Headline, TaskResult
from espalier_api.benchmarktasks import (
    ADMIT,
    REJECTIONS,
    REPORT,
    TALLY_ADMITTED,
    TALLY_ITEMS,
    TALLY_REQUESTS,
    BenchmarkValue,
)
from espalier_kit.artifacts import SCHEME
from espalier_operator.plan import benchmark_gate
from espalier_operator.plan.benchmark_work import is_measured
from espalier_operator.plan.conditions import Conditions
from espalier_operator.plan.ending import Ending, not_admitted, outcome_of
from espalier_operator.plan.facts import BenchmarkJobFacts
from espalier_rpc.views import JobView, TaskOutcome

MAX_VALUE_CHARS = 1000
"""Of a workflow task's value in the status; all of it is at the coordinator."""
MAX_RESULTS = 50


def is_admitted(facts: BenchmarkJobFacts, view: JobView) -> bool:
    """Whether the admission passed; a workflow has none and is accepted with its submission."""
    return TALLY_ADMITTED in view.tallies or not is_measured(facts.job)


def said(facts: BenchmarkJobFacts, view: JobView) -> str:
    """How far it is, in words."""
    if not is_measured(facts.job):
        return f"{view.counts.finished} of {view.counts.total} tasks, {view.workers} workers"
    if TALLY_ADMITTED not in view.tallies:
        return "targets and data are checked"
    done = f"{int(view.tallies.get(TALLY_REQUESTS, 0))} requests, {int(view.tallies.get(TALLY_ITEMS, 0))} questions"
    return "; ".join(part for part in (view.message, done, f"{view.workers} generators") if part)


def completed(facts: BenchmarkJobFacts, view: JobView) -> Ending:
    """All tasks have ended."""
    return _measured(view) if is_measured(facts.job) else _worked_off(view)


def _measured(view: JobView) -> Ending:
    if (admission := outcome_of(view, ADMIT)) is not None and admission.state == "failed":
        return not_admitted(admission, REJECTIONS, what="the benchmark")
    report = outcome_of(view, REPORT)
    if report is None or report.state != "done":
        why = report.message if report is not None and report.message else _first_failure(view)
        return Ending("Failed", "ReportFailed", why or "the report task did not run")
    try:
        value = BenchmarkValue.model_validate(report.value)
    except ValidationError:
        return Ending("Failed", "ReportFailed", "the report task returned no report")
    if value.targets and not any(target.succeeded for target in value.targets):
        return Ending("Failed", "NothingMeasured", "not one request was answered", report=value)
    return Ending("Complete", "Finished", _summary(value), report=value)


def _summary(value: BenchmarkValue) -> str:
    answered = [f"{t.name}: {t.succeeded} of {t.requests} requests answered" for t in value.targets]
    rated = [f"{a.name} of {a.target}: {a.value:.4g}" for a in value.accuracy if a.value is not None]
    return "; ".join([*answered, *rated, *([value.stopped] if value.stopped else [])])


def _worked_off(view: JobView) -> Ending:
    counts = view.counts
    if counts.failed:
        skipped = f"; {counts.skipped} were skipped" if counts.skipped else ""
        return Ending("Failed", "TaskFailed", f"{counts.failed} of {counts.total} tasks failed: {_first_failure(view)}"
                      f"{skipped}")
    return Ending("Complete", "Finished", f"{counts.done} tasks done")


def _first_failure(view: JobView) -> str:
    failed = next((outcome for outcome in view.outcomes if outcome.state == "failed"), None)
    return f"{failed.key}: {failed.message}" if failed is not None else ""


def numbers(facts: BenchmarkJobFacts, view: JobView, now: datetime) -> dict[str, Any]:
    """How far it is, and when it will be done."""
    share = view.fraction or (view.counts.finished / view.counts.total if view.counts.total else 0.0)
    elapsed = (now - facts.job.status.start_time).total_seconds() if facts.job.status.start_time else 0.0
    left = round(elapsed * (1 - share) / share) if view.state == "running" and share > 0 and elapsed > 0 else None
    fields: dict[str, Any] = {
        "progress_percent": min(99, int(share * 100)), "estimated_seconds_left": left, "sandbox": facts.sandbox,
    }
    return fields if is_measured(facts.job) else {**fields, "results": _results(view)}


def reported(facts: BenchmarkJobFacts, end: Ending, conditions: Conditions) -> dict[str, Any]:
    """The report's figures; the gate's verdict."""
    report = end.report
    if not isinstance(report, BenchmarkValue):
        if facts.job.spec.gate and end.type != "Cancelled":
            conditions.set("Passed", "False", "GateInconclusive", "there is no report to decide from")
        return {"progress_percent": 100} if end.type == "Complete" else {}
    if facts.job.spec.gate:
        conditions.set("Passed", *benchmark_gate.judge(facts.job.spec.gate, report))
    _degrade(conditions, report)
    return {
        "headline": _headline(report.targets[0]) if report.targets else None,
        "targets": report.targets or None, "accuracy": report.accuracy or None, "validity": report.validity,
        "min_detectable_effect": report.min_detectable_effect, "cost": report.cost, "files": report.files,
        "result_uri": f"{SCHEME}{report.index}", "progress_percent": 100,
    }


def degraded(_: JobView) -> list[tuple[str, str]]:
    """Nothing that tallies tell: what went wrong stands in the report."""
    return []


def _degrade(conditions: Conditions, report: BenchmarkValue) -> None:
    found = [("InvalidRun", reason.message) for reason in report.validity.reasons]
    found += [("LimitReached", report.stopped)] if report.stopped else []
    if found:
        conditions.set("Degraded", "True", found[0][0], "; ".join(message for _, message in found))


def _headline(target: TargetFigures) -> Headline:
    ttft = benchmark_gate.latency(target, "ttft")
    median = next((p.value for p in ttft.percentiles if p.name == "p50"), None) if ttft is not None else None
    return Headline(
        ttft_p50_ms=_short(median), output_tokens_per_second=_short(target.output_tokens_per_second),
        goodput_per_second=_short(target.goodput_per_second),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _results(view: JobView) -> tuple[TaskResult, ...]:
    return tuple(_result(outcome) for outcome in view.outcomes[:MAX_RESULTS])


def _result(outcome: TaskOutcome) -> TaskResult:
    value = json.dumps(outcome.value, ensure_ascii=False) if outcome.value else None
    return TaskResult(
        name=outcome.key, state=outcome.state, reason=outcome.reason or None, message=outcome.message or None,
        value=value if value is not None and len(value) <= MAX_VALUE_CHARS else None,
    )

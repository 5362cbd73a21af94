"""Numbers of a GradingJob's status: from the coordinator's tallies while it runs, from the report at the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from espalier_api.common import TaskCounts
from espalier_api.gradingjob import (
    ModelPerformance,
    ModelsPerformance,
    PerformanceStatus,
    PerformanceTargets,
    Scores,
    SubmissionCounts,
)
from espalier_api.tasks import (
    TALLY_FAILED,
    TALLY_GRADED,
    TALLY_NOT_GRADABLE,
    TALLY_POINTS,
    TALLY_REVIEW,
    TALLY_SUBMISSIONS,
    JudgePerformance,
    ReportValue,
)
from espalier_rpc.views import JobView

Band = Literal["Excellent", "Good", "BelowTarget"]
GOOD_FRACTION = {"code": 25 / 30, "feedback": 30 / 35, "combined": 40 / 60}
"""The seed's bands: Excellent from 30/35/60 tok/s, Good from 25/30/40; other targets scale alike."""


def task_counts(view: JobView) -> TaskCounts:
    """Tasks by state."""
    counts = view.counts
    return TaskCounts(pending=counts.pending, running=counts.running, done=counts.done, failed=counts.failed)


def submission_counts(view: JobView) -> SubmissionCounts:
    """Submissions by outcome, from the tallies."""
    def tally(name: str) -> int:
        return int(view.tallies.get(name, 0))

    return SubmissionCounts(
        total=tally(TALLY_SUBMISSIONS), graded=tally(TALLY_GRADED), needs_review=tally(TALLY_REVIEW),
        not_gradable=tally(TALLY_NOT_GRADABLE), failed=tally(TALLY_FAILED),
    )


def processed(counts: SubmissionCounts) -> int:
    """Submissions that came to an end, however."""
    return counts.graded + counts.not_gradable + counts.failed


def percent(counts: SubmissionCounts) -> int:
    """Whole percent; 100 only once the report is written."""
    return min(99, 100 * processed(counts) // counts.total) if counts.total else 0


def running_mean(view: JobView, counts: SubmissionCounts) -> Scores | None:
    """The mean so far."""
    if counts.graded == 0:
        return None
    return Scores(mean=round(view.tallies.get(TALLY_POINTS, 0.0) / counts.graded, 2))


def per_hour(counts: SubmissionCounts, started: datetime | None, now: datetime) -> float | None:
    """Submissions an hour since the start."""
    elapsed = (now - started).total_seconds() if started else 0.0
    return round(processed(counts) * 3600 / elapsed, 1) if elapsed > 0 and processed(counts) else None


def seconds_left(counts: SubmissionCounts, rate: float | None) -> int | None:
    """Estimate from the rate so far."""
    return None if not rate else round((counts.total - processed(counts)) * 3600 / rate)


def report_value(value: Mapping[str, Any] | None) -> ReportValue | None:
    """The report task's value, or None where it is not one."""
    try:
        return ReportValue.model_validate(value)
    except ValidationError:
        return None


def final_performance(report: ReportValue, targets: PerformanceTargets, *, shared: bool | None) -> PerformanceStatus:
    """Speed of the whole job, with its band."""
    return PerformanceStatus(
        models=ModelsPerformance(code=_model(report.code), feedback=_model(report.feedback)),
        combined_tokens_per_second=report.combined_tokens_per_second,
        parallel_speedup=report.parallel_speedup,
        parallel_efficiency=report.parallel_efficiency,
        submissions_per_hour=report.submissions_per_hour,
        band=band(report, targets),
        shared_hardware=shared,
    )


def band(report: ReportValue, targets: PerformanceTargets) -> Band | None:
    """Excellent, Good or BelowTarget; None where a figure is missing."""
    if report.code is None or report.feedback is None or report.combined_tokens_per_second is None:
        return None
    figures = {
        "code": (report.code.tokens_per_second, targets.code),
        "feedback": (report.feedback.tokens_per_second, targets.feedback),
        "combined": (report.combined_tokens_per_second, targets.combined),
    }
    if all(value >= target for value, target in figures.values()):
        return "Excellent"
    good = all(value >= target * GOOD_FRACTION[name] for name, (value, target) in figures.items())
    return "Good" if good else "BelowTarget"


def slow_models(report: ReportValue, targets: PerformanceTargets) -> tuple[str, ...]:
    """A clause for each judge below its target."""
    judged = (("code", report.code, targets.code), ("feedback", report.feedback, targets.feedback))
    return tuple(
        f"{name}: {model.tokens_per_second:.1f} of {target:g} tok/s"
        for name, model, target in judged
        if model is not None and model.tokens_per_second < target
    )


def _model(figures: JudgePerformance | None) -> ModelPerformance | None:
    return None if figures is None else ModelPerformance(**figures.model_dump())

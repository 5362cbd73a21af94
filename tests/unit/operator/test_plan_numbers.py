"""Counts, mean, rate, bands and endings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from espalier_api.gradingjob import PerformanceTargets, SubmissionCounts
from espalier_api.tasks import ReportValue
from espalier_operator.plan.grading_ending import completed
from espalier_operator.plan.progress import (
    band,
    per_hour,
    percent,
    running_mean,
    seconds_left,
    slow_models,
    submission_counts,
)
from espalier_rpc.views import JobView, TaskOutcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def view(**changes: Any) -> JobView:
    return JobView("u", "course", "week-1", "GradingJob", "running", **changes)


def report(code: float, feedback: float, combined: float) -> ReportValue:
    def figures(speed: float) -> dict[str, float]:
        return {"tokensPerSecond": speed, "promptTokens": 1, "outputTokens": 1, "p50Seconds": 1, "p95Seconds": 1}

    return ReportValue.model_validate({
        "index": "c" * 64, "submissions": {}, "code": figures(code), "feedback": figures(feedback),
        "combinedTokensPerSecond": combined,
    })


BANDS = {
    "at the targets": ((30, 35, 60), "Excellent"),
    "one below": ((29, 40, 70), "Good"),
    "at the lower edge": ((25, 30, 40), "Good"),
    "below it": ((24, 40, 70), "BelowTarget"),
    "combined too slow": ((30, 35, 39), "BelowTarget"),
}


@pytest.mark.parametrize("case", BANDS)
def test_bands_are_the_seeds(case: str) -> None:
    speeds, name = BANDS[case]
    assert band(report(*speeds), PerformanceTargets()) == name


def test_bands_scale_with_the_targets() -> None:
    assert band(report(3, 3.5, 6), PerformanceTargets(code=3, feedback=3.5, combined=6)) == "Excellent"
    assert band(report(2.5, 3, 4), PerformanceTargets(code=3, feedback=3.5, combined=6)) == "Good"


def test_slow_models_are_named_with_their_figures() -> None:
    assert slow_models(report(12, 40, 52), PerformanceTargets()) == ("code: 12.0 of 30 tok/s",)


def test_numbers_while_the_job_runs() -> None:
    running = view(tallies={"submissions": 10, "graded": 3, "needsReview": 1, "notGradable": 1, "points": 61.0})
    counts = submission_counts(running)
    assert counts == SubmissionCounts(total=10, graded=3, needs_review=1, not_gradable=1, failed=0)
    assert percent(counts) == 40
    mean = running_mean(running, counts)
    assert mean is not None
    assert (mean.mean, mean.median) == (20.33, None)
    rate = per_hour(counts, NOW - timedelta(minutes=2), NOW)
    assert rate == 120.0
    assert seconds_left(counts, rate) == 180


def test_nothing_is_estimated_before_the_first_submission_is_through() -> None:
    counts = submission_counts(view())
    assert (percent(counts), per_hour(counts, NOW, NOW), seconds_left(counts, None)) == (0, None, None)
    assert running_mean(view(), counts) is None


def outcome(type_: str, state: str, reason: str = "", message: str = "", value: Any = None) -> TaskOutcome:
    return TaskOutcome(type_, type_, state, reason, message, value)


VALUE = {"index": "c" * 64, "submissions": {"total": 3, "graded": 2, "needsReview": 1, "notGradable": 1, "failed": 0}}
ALL_FAILED = {"index": "c" * 64, "submissions": {"total": 2, "failed": 2}}
ENDINGS = {
    "nothing graded": ([outcome("grading.report", "done", value=ALL_FAILED)], "Failed", "PlatformFault", False),
    "report": ([outcome("grading.report", "done", value=VALUE)], "Complete", "Finished", False),
    "bad bundle": ([outcome("grading.admit", "failed", "BundleRejected", "x")], "Failed", "BundleRejected", True),
    "no bundle": ([outcome("grading.admit", "failed", "SourceNotFound", "x")], "Failed", "SourceNotFound", True),
    "admission broke": ([outcome("grading.admit", "failed", "PlatformFault", "x")], "Failed", "PlatformFault", False),
    "report failed": ([outcome("grading.report", "failed", "PlatformFault", "x")], "Failed", "ReportFailed", False),
    "no report": ([], "Failed", "ReportFailed", False),
    "odd report": ([outcome("grading.report", "done", value={"index": 1})], "Failed", "ReportFailed", False),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_endings(case: str) -> None:
    outcomes, type_, reason, is_rejected = ENDINGS[case]
    end = completed(view(outcomes=tuple(outcomes)))
    assert (end.type, end.reason, end.is_rejected) == (type_, reason, is_rejected)
